package devstack

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

// Ports are drawn from below the ranges that systems take for outgoing connections (Linux 32768 and
// up, others 49152): between a Kill and a Start such a connection could sit on the server's port. A
// client that redials a dead server there even connects to itself, and holds the port for good.
const (
	firstPort = 15000
	lastPort  = 32000
)

// choosePort gives the port that the file remembers if it is free, else another one, which it then
// remembers.
func choosePort(log io.Writer, file, what string) (int, error) {
	old := readPID(file)
	if old > 0 && portFree(old) {
		return old, nil
	}
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if !portFree(port) {
			continue
		}
		if old > 0 {
			_, _ = fmt.Fprintf(log, "port %d is taken by another program: %s now listens on %d\n", old, what, port)
		}
		return port, keepPort(file, port)
	}
	return 0, errors.New("no free port on 127.0.0.1 between 15000 and 32000: end some of the programs that listen there")
}

func keepPort(file string, port int) error {
	if err := os.WriteFile(file, []byte(strconv.Itoa(port)+"\n"), 0o600); err != nil {
		return unwritable(strings.TrimSuffix(file, "/port"), err)
	}
	return nil
}

// portFree tries to bind, without SO_REUSEADDR's leniency towards a listener that is there.
func portFree(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // no name to resolve
	if err != nil {
		return false
	}
	return l.Close() == nil
}
