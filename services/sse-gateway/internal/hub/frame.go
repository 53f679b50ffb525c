package hub

import (
	"bytes"
	"strconv"
)

// Frame is one event as the stream sends it (WHATWG HTML, section 9.2.6): "id: <position>", one
// "data:" line with the whole JSON, an empty line. Its bytes are shared and never changed.
type Frame struct {
	Position int64
	Bytes    []byte
}

const (
	idField   = "id: "
	dataField = "\ndata: "
	frameEnd  = "\n\n"
)

// Envelope is the event's JSON in the frame.
func (f Frame) Envelope() []byte {
	_, rest, _ := bytes.Cut(f.Bytes, []byte(dataField))
	return bytes.TrimSuffix(rest, []byte(frameEnd))
}

// AppendFrame writes an event's frame. A line break in the envelope could only be white space
// between JSON tokens (inside a string it is escaped), so it is written as a space: whatever a
// producer records, an event is one line.
func AppendFrame(b []byte, position int64, envelope []byte) []byte {
	b = append(b, idField...)
	b = strconv.AppendInt(b, position, 10)
	b = append(b, dataField...)
	begin := len(b)
	b = append(b, envelope...)
	for i := begin; i < len(b); {
		n := bytes.IndexAny(b[i:], "\r\n")
		if n < 0 {
			break
		}
		b[i+n] = ' '
		i += n + 1
	}
	return append(b, frameEnd...)
}

// maxOverhead is what a frame adds to its envelope at most.
const maxOverhead = len(idField) + 20 + len(dataField) + len(frameEnd)
