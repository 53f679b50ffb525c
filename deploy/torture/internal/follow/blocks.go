package follow

import (
	"bufio"
	"bytes"
	"fmt"
)

// block is one block of an event stream (WHATWG HTML, 9.2.5 and 9.2.6).
type block struct {
	id    string
	hasID bool
	event string
	data  []byte
	// hasData is what makes a client dispatch the block.
	hasData bool
	// comment tells that there was one, which is all that a heartbeat may have.
	comment bool
}

// readBlock reads up to the next empty line, what comments say left out; a block cut off by the end of the
// stream is an error, as a browser drops it too. A block of comments alone comes back empty.
func readBlock(r *bufio.Reader, b *block) error {
	*b = block{data: b.data[:0]}
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return nil
		}
		if line[0] == ':' {
			b.comment = true
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			b.id, b.hasID = string(value), true
		case "event":
			b.event = string(value)
		case "data":
			if b.hasData {
				b.data = append(b.data, '\n')
			}
			b.data, b.hasData = append(b.data, value...), true
		case "retry":
		default:
			return fmt.Errorf("the stream has an unknown field %.40q", name)
		}
	}
}
