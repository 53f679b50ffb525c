package signing_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/netguard"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/httpsend"
	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

// example gives the receiver that the README shows in a language, listening at a port of its own.
func example(t *testing.T, language string) (code, port string) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(readme), "```"+language+"\n")
	require.True(t, found, language)
	code, _, found = strings.Cut(rest, "```")
	require.True(t, found)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Equal(t, 1, strings.Count(code, "9000"))
	return strings.Replace(code, "9000", port, 1), port
}

// receives runs a receiver and sends to it: what is ours is accepted, what another secret signed is not.
func receives(t *testing.T, port string, command ...string) {
	secret := signing.NewSecret()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+secret)
	cmd.Dir = filepath.Dir(command[len(command)-1])
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	guard, err := netguard.New(netguard.Options{Allow: []string{"127.0.0.1"}, HTTP: true})
	require.NoError(t, err)
	s, err := httpsend.New(httpsend.Options{Guard: guard})
	require.NoError(t, err)
	defer s.Close()
	send := func(secrets ...string) delivery.Result {
		e := &delivery.Endpoint{ID: 12, URL: "http://127.0.0.1:" + port}
		for _, text := range secrets {
			e.Secrets = append(e.Secrets, delivery.Secret{Text: text})
		}
		return s.Send(t.Context(), e, &delivery.Delivery{EventID: 8401, EndpointID: 12}, []byte(body))
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	up := time.After(time.Minute)
	for send(secret).Cause == delivery.CauseConnect {
		select {
		case <-up:
			t.Fatal("it does not listen")
		case <-tick.C:
		}
	}
	r := send(secret)
	require.Empty(t, r.Cause, r.Error)
	r = send(signing.NewSecret(), secret)
	require.Empty(t, r.Cause, r.Error)
	require.Equal(t, 401, send(signing.NewSecret()).Status)
}

func TestReadmeGo(t *testing.T) {
	code, port := example(t, "go")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(code), 0o600))
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "receiver"), filepath.Join(dir, "main.go")).CombinedOutput()
	require.NoError(t, err, string(out))
	receives(t, port, filepath.Join(dir, "receiver"))
}

func TestReadmePython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("NOT RUN: there is no python3 here")
	}
	code, port := example(t, "python")
	path := filepath.Join(t.TempDir(), "receiver.py")
	require.NoError(t, os.WriteFile(path, []byte(code), 0o600))
	receives(t, port, "python3", path)
}

// readmeNode runs where the packages are installed.
func readmeNode(t *testing.T, dir string) {
	code, port := example(t, "js")
	path := filepath.Join(dir, "receiver.js")
	require.NoError(t, os.WriteFile(path, []byte(code), 0o600))
	receives(t, port, "node", path)
}
