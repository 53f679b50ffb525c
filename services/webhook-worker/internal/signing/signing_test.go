package signing_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	svix "github.com/svix/svix-webhooks/go"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/services/webhook-worker/internal/signing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const body = `{"type":"task.post_create","timestamp":"2026-04-12T14:30:00.000Z","data":{"name":"Käse <&> 茶 🧀"}}`

func key(t testing.TB, secret string) signing.Key {
	k, err := signing.Parse(secret)
	require.NoError(t, err)
	return k
}

// request is what a receiver sees.
type request struct {
	Library   string `json:"library"`
	Secret    string `json:"secret"`
	ID        string `json:"id"`
	Timestamp string `json:"timestamp"`
	Signature string `json:"signature"`
	Body      string `json:"body"`
}

func signed(t testing.TB, at time.Time, secrets ...string) request {
	var keys []signing.Key
	for _, s := range secrets {
		keys = append(keys, key(t, s))
	}
	id := signing.MessageID(8401, 12)
	signature, err := signing.Sign(keys, id, at, []byte(body))
	require.NoError(t, err)
	return request{ID: id, Timestamp: strconv.FormatInt(at.Unix(), 10), Signature: signature, Body: body}
}

func (r request) headers() http.Header {
	h := http.Header{}
	h.Set(signing.HeaderID, r.ID)
	h.Set(signing.HeaderTimestamp, r.Timestamp)
	h.Set(signing.HeaderSignature, r.Signature)
	return h
}

// scenario is a request, who verifies it with which secret, and whether it must be accepted.
type scenario struct {
	name   string
	r      request
	secret string
	want   bool
}

// scenarios: what is ours is accepted, also by those who hold the older secret while two sign; any change is refused.
func scenarios(t testing.TB) []scenario {
	secret, older := signing.NewSecret(), signing.NewSecret()
	private, _ := signing.NewKeyPair()
	now := time.Now()
	good := signed(t, now, secret)
	rotating := signed(t, now, secret, older, private)
	change := func(f func(*request)) request { r := rotating; f(&r); return r }
	return []scenario{
		{"ours", good, secret, true},
		{"newest of two", rotating, secret, true},
		{"older of two", rotating, older, true},
		{"wrong secret", rotating, signing.NewSecret(), false},
		{"changed body", change(func(r *request) { r.Body += " " }), secret, false},
		{"other id", change(func(r *request) { r.ID = signing.MessageID(8402, 12) }), secret, false},
		{"other timestamp", change(func(r *request) { r.Timestamp = strconv.FormatInt(now.Unix()+1, 10) }), secret, false},
		{"old timestamp", signed(t, now.Add(-6*time.Minute), secret), secret, false},
		{"early timestamp", signed(t, now.Add(6*time.Minute), secret), secret, false},
		{"no signature", change(func(r *request) { r.Signature = "v1," }), secret, false},
		{"v1a alone", signed(t, now, private), secret, false},
	}
}

// Receivers that nobody here wrote, in Go.
func TestGoReceivers(t *testing.T) {
	verifiers := map[string]func(secret string, r request) error{
		"standard-webhooks": func(secret string, r request) error {
			wh, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				return err
			}
			return wh.Verify([]byte(r.Body), r.headers())
		},
		"svix": func(secret string, r request) error {
			wh, err := svix.NewWebhook(secret)
			if err != nil {
				return err
			}
			return wh.Verify([]byte(r.Body), r.headers())
		},
	}
	for library, verify := range verifiers {
		for _, s := range scenarios(t) {
			err := verify(s.secret, s.r)
			require.Equal(t, s.want, err == nil, "%s: %s: %v", library, s.name, err)
		}
	}
}

// What needs the packages of npm: they are installed once.
func TestNode(t *testing.T) {
	dir := install(t)
	t.Run("libraries", func(t *testing.T) { nodeLibraries(t, dir) })
	t.Run("README", func(t *testing.T) { readmeNode(t, dir) })
}

// nodeLibraries is TestGoReceivers in JavaScript, and v1a by Node's own crypto.
func nodeLibraries(t *testing.T, dir string) {
	var in bytes.Buffer
	var want []bool
	var names []string
	enc := json.NewEncoder(&in)
	add := func(library, secret, name string, r request, ok bool) {
		r.Library, r.Secret = library, secret
		require.NoError(t, enc.Encode(r))
		want, names = append(want, ok), append(names, library+": "+name)
	}
	for _, s := range scenarios(t) {
		add("standardwebhooks", s.secret, s.name, s.r, s.want)
		add("svix", s.secret, s.name, s.r, s.want)
	}
	private, public := signing.NewKeyPair()
	_, other := signing.NewKeyPair()
	r := signed(t, time.Now(), signing.NewSecret(), private)
	add("crypto", public, "v1a", r, true)
	add("crypto", other, "another key", r, false)
	r.Body += " "
	add("crypto", public, "changed body", r, false)

	cmd := exec.Command("node", "verify.js")
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, &in, os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	answers := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, answers, len(want))
	for i, a := range answers {
		require.Equal(t, want[i], a == "accepted", "%s: %s", names[i], a)
	}
}

// install puts the packages of the lockfile in a directory of its own. Where there is no node, or no registry, the test is
// not run, and says so.
func install(t *testing.T) string {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("NOT RUN: there is no " + tool + " here")
		}
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "receivers"))))
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		for _, sign := range []string{"ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH", "E403", "ECONNRESET"} {
			if strings.Contains(string(out), sign) {
				t.Skip("NOT RUN: the packages are out of reach: " + sign)
			}
		}
		require.NoError(t, err, string(out))
	}
	return dir
}

// The vector that the libraries of Standard Webhooks and Svix test themselves by.
func TestVector(t *testing.T) {
	k := key(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	got, err := signing.Sign([]signing.Key{k}, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 999_999_999), []byte(`{"test": 2432232314}`))
	require.NoError(t, err)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", got)
}

// The order, and the form: one space between, no empty part.
func TestOrder(t *testing.T) {
	secret, older := signing.NewSecret(), signing.NewSecret()
	private, public := signing.NewKeyPair()
	now := time.Now()
	r := signed(t, now, private, secret, older)
	parts := strings.Split(r.Signature, " ")
	require.Len(t, parts, 3)
	require.Equal(t, signed(t, now, secret).Signature, parts[0], "who looks at the first alone, with the newest secret")
	require.Equal(t, signed(t, now, older).Signature, parts[1])
	sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(parts[2], "v1a,"))
	require.NoError(t, err)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(public, signing.PublicPrefix))
	require.NoError(t, err)
	require.True(t, ed25519.Verify(raw, []byte(r.ID+"."+r.Timestamp+"."+body), sum))
	require.False(t, ed25519.Verify(raw, []byte(r.ID+"."+r.Timestamp+"."+body+" "), sum))
	require.Equal(t, public, key(t, private).PublicKey())
	require.Empty(t, key(t, secret).PublicKey())
	// Without v1a who looks at the last alone is right with the older secret, until it expires.
	parts = strings.Split(signed(t, now, secret, older).Signature, " ")
	require.Equal(t, signed(t, now, older).Signature, parts[len(parts)-1])
}

func TestRefused(t *testing.T) {
	for _, s := range []string{
		"", "whsec_", "whsec_AAAA", "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23)), "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65)),
		"whsec_" + base64.RawStdEncoding.EncodeToString(make([]byte, 25)), "whsec_" + strings.Repeat("_", 32), base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"whsec_" + strings.Repeat("A", 20) + "\n" + strings.Repeat("A", 12), "whpk_" + base64.StdEncoding.EncodeToString(make([]byte, 32)),
	} {
		_, err := signing.Parse(s)
		require.ErrorIs(t, err, signing.ErrSecret, s)
	}
	private, _ := signing.NewKeyPair()
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(private, "whsk_"))
	raw[40] ^= 1 // a public key that is not the seed's would give signatures that show the key
	for _, s := range []string{"whsk_", "whsk_" + base64.StdEncoding.EncodeToString(raw[:32]), "whsk_" + base64.StdEncoding.EncodeToString(raw)} {
		_, err := signing.Parse(s)
		require.ErrorIs(t, err, signing.ErrPrivateKey)
	}
	for n := 24; n <= 64; n++ {
		_, err := signing.Parse("whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)))
		require.NoError(t, err)
	}
	_, err := signing.Sign(nil, "msg_1", time.Now(), nil)
	require.ErrorIs(t, err, signing.ErrNoSecret)
	for _, id := range []string{"", "msg.1", "msg 1", "msg\n1"} {
		_, err := signing.Sign([]signing.Key{key(t, signing.NewSecret())}, id, time.Now(), nil)
		require.Error(t, err)
	}
	require.NotContains(t, signing.MessageID(-1, 9223372036854775807), ".")
	secret := signing.NewSecret()
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s", key(t, secret), key(t, secret), key(t, secret), key(t, private)), "0x")
}

// FuzzParse: what is taken as a secret is taken alike by the library of Standard Webhooks.
func FuzzParse(f *testing.F) {
	private, _ := signing.NewKeyPair()
	for _, s := range []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", private, signing.NewSecret(), "whsec_", "whsk_", "whsec_whsec_AAAA"} {
		f.Add(s, "msg_1_2", []byte(body))
	}
	f.Fuzz(func(t *testing.T, secret, id string, payload []byte) {
		k, err := signing.Parse(secret)
		if err != nil {
			if !errors.Is(err, signing.ErrSecret) && !errors.Is(err, signing.ErrPrivateKey) {
				t.Fatal(err)
			}
			return
		}
		now := time.Now()
		signature, err := signing.Sign([]signing.Key{k}, id, now, payload)
		if err != nil || k.PublicKey() != "" {
			return
		}
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatalf("%q: %v", secret, err)
		}
		h := request{ID: id, Timestamp: strconv.FormatInt(now.Unix(), 10), Signature: signature}.headers()
		if err := wh.Verify(payload, h); err != nil {
			t.Fatalf("%q, %q: %v", secret, id, err)
		}
	})
}
