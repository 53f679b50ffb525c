package mcp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/services/prompt-worker/internal/mcp"
)

// everything installs the reference server and gives its program; the test is skipped, with the reason, where it cannot.
func everything(t *testing.T) (node, script string) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("NOT RUN: the reference server needs node")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("NOT RUN: the reference server needs npm")
	}
	lock, err := os.ReadFile("testdata/everything/package-lock.json")
	require.NoError(t, err)
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "sametick", "mcp-everything-"+hex.EncodeToString(sum[:8]))
	script = filepath.Join(dir, "node_modules", "@modelcontextprotocol", "server-everything", "dist", "index.js")
	if _, err := os.Stat(script); err == nil {
		return node, script
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	// Beside it and then renamed, so that what is there is whole.
	made, err := os.MkdirTemp(filepath.Dir(dir), "making-")
	require.NoError(t, err)
	defer func() { _ = os.RemoveAll(made) }()
	for _, name := range []string{"package.json", "package-lock.json"} {
		content, err := os.ReadFile(filepath.Join("testdata/everything", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(made, name), content, 0o600))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = made
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("NOT RUN: the reference server cannot be installed: %v\n%s", err, out)
	}
	if err := os.Rename(made, dir); err != nil {
		_, err = os.Stat(script) // another test was faster
		require.NoError(t, err)
	}
	return node, script
}

// reference is the server over HTTP.
type reference struct {
	t            *testing.T
	node, script string
	port         int
	stop         func()
}

func (r *reference) start() {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, r.node, r.script, "streamableHttp")
	cmd.Env = append(os.Environ(), fmt.Sprint("PORT=", r.port))
	require.NoError(r.t, cmd.Start())
	r.stop = func() {
		cancel() // kills it
		_ = cmd.Wait()
	}
	require.Eventually(r.t, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.port))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, time.Minute, 50*time.Millisecond)
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// use calls some of the reference server's tools.
func use(t *testing.T, s *mcp.Servers) {
	require.Eventually(t, func() bool {
		_, err := call(t, s, "echo", `{"message":"ready"}`)
		return err == nil
	}, time.Minute, 50*time.Millisecond)
	tools, err := s.Tools(t.Context(), ref)
	require.NoError(t, err)
	require.Greater(t, len(tools), 5)
	got, err := call(t, s, "echo", `{"message":"hello"}`)
	require.NoError(t, err)
	require.Equal(t, `"Echo: hello"`, got)
	got, err = call(t, s, "get-sum", `{"a":2,"b":3}`)
	require.NoError(t, err)
	require.Contains(t, got, "5")
	got, err = call(t, s, "get-structured-content", `{"location":"Chicago"}`)
	require.NoError(t, err)
	require.Contains(t, got, `"temperature":`)
	_, err = call(t, s, "get-sum", `{"a":"two","b":3}`)
	require.ErrorContains(t, err, "the arguments do not fit")
}

func TestEverythingHTTP(t *testing.T) {
	node, script := everything(t)
	r := &reference{t: t, node: node, script: script, port: freePort(t)}
	r.start()
	defer func() { r.stop() }()
	s := set(t, mcp.Server{Transport: mcp.TransportHTTP, URL: fmt.Sprintf("http://127.0.0.1:%d/mcp", r.port)})
	use(t, s)
	r.stop()
	_, err := call(t, s, "echo", `{"message":"hello"}`)
	require.Error(t, err)
	r.start()
	use(t, s)
}

func TestEverythingStdio(t *testing.T) {
	node, script := everything(t)
	command := []string{node, script, "stdio"}
	s := set(t, mcp.Server{Transport: mcp.TransportStdio, Command: command})
	use(t, s)
	got, err := call(t, s, "get-env", `{}`)
	require.NoError(t, err)
	require.NotContains(t, got, "PATH", "it sees nothing of ours")
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("NOT RUN: finding the server's process needs /proc")
	}
	require.True(t, killChild(t, strings.Join(command, "\x00")))
	use(t, s)
}

// killChild kills this process's child with a command line.
func killChild(t *testing.T, command string) bool {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range entries {
		line, err := os.ReadFile(file)
		pid := 0
		if _, scanned := fmt.Sscanf(file, "/proc/%d/cmdline", &pid); err != nil || scanned != nil || strings.TrimSuffix(string(line), "\x00") != command {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		// proc(5): the state and the parent stand after the name.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if err == nil && fields[1] == strconv.Itoa(os.Getpid()) {
			p, err := os.FindProcess(pid)
			require.NoError(t, err)
			return p.Kill() == nil
		}
	}
	return false
}
