package rig_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sametick/sametick/deploy/torture/internal/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script makes a process of a shell script that says "up" in its log once it is.
func script(t *testing.T, text string) (p *rig.Process, awaitUp func()) {
	t.Helper()
	dir := t.TempDir()
	path, log := filepath.Join(dir, "script"), filepath.Join(dir, "log")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700))
	return rig.NewProcess("it", path, []string{"PATH=" + os.Getenv("PATH")}, log), func() {
		t.Helper()
		require.Eventually(t, func() bool {
			b, err := os.ReadFile(log)
			return err == nil && len(b) >= 3
		}, 10*time.Second, 5*time.Millisecond)
	}
}

func TestAProcessDiesAndComesBack(t *testing.T) {
	p, up := script(t, "echo up\nexec sleep 100")
	require.NoError(t, p.Start(t.Context()))
	require.NoError(t, p.Start(t.Context()), "starting what runs does nothing")
	up()
	p.Kill()
	p.Kill()
	require.NoError(t, p.Start(t.Context()))
	p.Pause()
	p.Kill()
	require.Empty(t, p.Deaths(), "all of these ends were asked for")
}

func TestTerminateWantsACleanEnd(t *testing.T) {
	for text, clean := range map[string]bool{
		"trap 'exit 0' TERM\necho up\nwhile :; do sleep 0.05; done": true,
		"trap 'exit 3' TERM\necho up\nwhile :; do sleep 0.05; done": false,
		"trap '' TERM\necho up\nwhile :; do sleep 0.05; done":       false,
	} {
		p, up := script(t, text)
		require.NoError(t, p.Start(t.Context()))
		up()
		p.Pause() // a stopped process must hear it too
		err := p.Terminate(2 * time.Second)
		require.Equal(t, clean, err == nil, "%s: %v", text, err)
		require.NoError(t, p.Terminate(time.Second), "nothing runs any more")
	}
}

// A process that has hardly begun handles no signal yet; one that is older does.
func TestTheYoungMayDieOfSIGTERM(t *testing.T) {
	for youth, clean := range map[time.Duration]bool{time.Minute: true, 0: false} {
		p, up := script(t, "echo up\nexec sleep 100")
		p.Youth = youth
		require.NoError(t, p.Start(t.Context()))
		up()
		err := p.Terminate(5 * time.Second)
		require.Equal(t, clean, err == nil, "%s: %v", youth, err)
	}
}

func TestAnUnaskedEndIsReported(t *testing.T) {
	p, _ := script(t, "exit 7")
	require.NoError(t, p.Start(t.Context()))
	require.Eventually(t, func() bool { return len(p.Deaths()) == 1 }, 10*time.Second, 5*time.Millisecond)
	require.Contains(t, p.Deaths()[0], "exit status 7")
}

// server answers each connection with its name.
func server(t *testing.T, name string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(conn, name)
			_ = conn.Close()
		}
	}()
	return l
}

func ask(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}

func TestAFrontGoesRoundWhoeverAccepts(t *testing.T) {
	one, two := server(t, "one"), server(t, "two")
	f, err := rig.NewFront([]string{one.Addr().String(), two.Addr().String()})
	require.NoError(t, err)
	got := map[string]int{}
	for range 10 {
		got[ask(t, f.Address())]++
	}
	require.Equal(t, map[string]int{"one\n": 5, "two\n": 5}, got)
	require.NoError(t, one.Close())
	for range 5 {
		require.Equal(t, "two\n", ask(t, f.Address()))
	}
	require.NoError(t, two.Close())
	require.Empty(t, ask(t, f.Address()), "nobody is there")
	require.NoError(t, f.Close())
}

func TestClosingAFrontEndsItsConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	f, err := rig.NewFront([]string{l.Addr().String()})
	require.NoError(t, err)
	conn, err := net.Dial("tcp", f.Address())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	behind, err := l.Accept()
	require.NoError(t, err)
	defer func() { _ = behind.Close() }()
	require.NoError(t, f.Close())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

// A replica's port must not be one that the kernel hands out to connections: somebody's may have it while the replica is
// dead.
func TestPortsAreNoneThatConnectionsGet(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skip("the kernel does not tell its range here")
	}
	var first, last int
	_, err = fmt.Sscan(string(text), &first, &last)
	require.NoError(t, err)
	addresses, err := rig.FreeAddresses(50)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, a := range addresses {
		at, err := net.ResolveTCPAddr("tcp", a)
		require.NoError(t, err)
		require.False(t, at.Port >= first && at.Port <= last, "%s is in %d to %d", a, first, last)
		require.False(t, seen[a], "%s is given twice", a)
		seen[a] = true
	}
}
