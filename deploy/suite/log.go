package suite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
)

// logFile keeps a service's log lines in a file and shows a person the warnings among them.
type logFile struct {
	name    string
	service string
	person  io.Writer

	mu   sync.Mutex
	f    *os.File
	part []byte   // a line that has not ended yet
	tail []string // the last lines
}

func openLog(name, service string, person io.Writer) (*logFile, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w: make it writable, or free space", name, err)
	}
	return &logFile{name: name, service: service, person: person, f: f}, nil
}

// Write takes output in any pieces. A full disk loses log lines, never the service.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.f.Write(b)
	l.part = append(l.part, b...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			return len(b), nil
		}
		l.line(string(line))
		l.part = slices.Clone(rest)
	}
}

func (l *logFile) line(line string) {
	l.tail = append(l.tail, line)
	if len(l.tail) > 10 {
		l.tail = l.tail[1:]
	}
	if text, ok := warning(line); ok {
		_, _ = fmt.Fprintf(l.person, "%s: %s\n", l.service, text)
	}
}

// warning gives what a person should see of a line: all that is no log line (a panic), and of log
// lines those from WARN up, as text.
func warning(line string) (string, bool) {
	var fields map[string]any
	if json.Unmarshal([]byte(line), &fields) != nil {
		return line, strings.TrimSpace(line) != ""
	}
	level, _ := fields["level"].(string)
	if level != "WARN" && level != "ERROR" {
		return "", false
	}
	text := strings.ToLower(level) + ": " + fmt.Sprint(fields["msg"])
	names := make([]string, 0, len(fields))
	for name := range fields {
		if name != "level" && name != "msg" && name != "time" && name != "service" && name != "stack" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		text += fmt.Sprintf(" %s=%v", name, fields[name])
	}
	return text, true
}

// readable is warning for several lines.
func readable(lines string) string {
	var shown []string
	for line := range strings.Lines(lines) {
		if text, ok := warning(strings.TrimRight(line, "\n")); ok {
			shown = append(shown, text)
		}
	}
	return strings.Join(shown, "\n")
}

func (l *logFile) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(slices.Clone(l.tail), string(l.part)), "\n")
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", l.name, err)
	}
	return nil
}
