package tenancy_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// spy stands between the service and its database and remembers which statements it runs: what an answer
// takes is measured by that, because times on a shared machine prove nothing.
type spy struct {
	t  *testing.T
	l  net.Listener
	to string

	mu         sync.Mutex
	statements []string
	conns      []net.Conn
	running    sync.WaitGroup
}

func newSpy(t *testing.T) *spy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &spy{t: t, l: l}
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

// before stands before a database, and gives the URL that leads through here.
func (s *spy) before(database string) string {
	u, err := url.Parse(database)
	require.NoError(s.t, err)
	s.to = u.Host
	u.Host = s.l.Addr().String()
	q := u.Query()
	q.Set("sslmode", "disable")
	u.RawQuery = q.Encode()
	s.running.Go(s.accept)
	return u.String()
}

func (s *spy) accept() {
	for {
		client, err := s.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", s.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		s.mu.Lock()
		s.conns = append(s.conns, client, server)
		s.mu.Unlock()
		s.running.Go(func() {
			_, _ = io.Copy(client, server)
			_ = client.Close()
		})
		s.running.Go(func() {
			_ = s.listen(bufio.NewReader(client), server)
			_ = server.Close()
		})
	}
}

// listen passes on what a client says (PostgreSQL documentation, 54.7), after it has noted every statement: by
// its text or, when it was prepared, by its name, which pgx makes of the text.
func (s *spy) listen(client *bufio.Reader, server io.Writer) error {
	for header := 4; ; header = 5 { // the startup message has no type
		head := make([]byte, header)
		if _, err := io.ReadFull(client, head); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[header-4:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return err
		}
		if header == 5 {
			s.note(head[0], strings.SplitN(string(body), "\x00", 3))
		}
		if _, err := server.Write(append(head, body...)); err != nil {
			return err
		}
	}
}

func (s *spy) note(kind byte, parts []string) {
	switch {
	case kind == 'Q':
		s.add(parts[0])
	case kind == 'P' && parts[0] == "":
		s.add(parts[1])
	case kind == 'B' && parts[1] != "":
		s.add(parts[1])
	}
}

func (s *spy) add(statement string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statements = append(s.statements, statement)
}

// take gives what was run since the last time.
func (s *spy) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.statements)
	s.statements = s.statements[:0]
	return out
}
