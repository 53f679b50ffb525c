package tail

import (
	"bufio"
	"io"
	"strings"
)

// message is one block of an event stream. A block without data moves the position alone, which the
// libraries at hand do not report; hence this reader.
type message struct {
	event, data string
	id          string // of this block or, when it has none, empty
	hasData     bool
}

// messages reads a stream (WHATWG HTML, 9.2.6) and hands each block to take until an error or the end.
// A block that the connection cuts short is dropped. retry fields and comments are skipped.
func messages(r io.Reader, take func(message) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var m message
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" {
			if m != (message{}) {
				if err := take(m); err != nil {
					return err
				}
			}
			m = message{}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "data":
			if m.hasData {
				m.data += "\n"
			}
			m.data, m.hasData = m.data+value, true
		case "id":
			if !strings.Contains(value, "\x00") {
				m.id = value
			}
		case "event":
			m.event = value
		}
	}
	return lines.Err()
}
