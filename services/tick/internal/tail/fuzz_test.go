package tail

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzMessages: a stream says the same however it is cut into packets, and no block holds what would have
// ended it.
func FuzzMessages(f *testing.F) {
	for _, seed := range []string{"id: 1\ndata: {\"a\":1}\n\n", "event: reset\ndata: 5\n\n: heartbeat\n\n", "data: a\ndata: b\r\n\r\n", "id: 1\x00\n\n", "data\n\n", "data: cut", "\ufeffdata: x\n\n", ":\n\n\n\n", "id\nid:\nid:  2\n\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read := func(bytewise bool) (list []message) {
			r := strings.NewReader(text)
			take := func(m message) error { list = append(list, m); return nil }
			var err error
			if bytewise {
				err = messages(iotest.OneByteReader(r), take)
			} else {
				err = messages(r, take)
			}
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		whole := read(false)
		if pieces := read(true); !reflect.DeepEqual(whole, pieces) {
			t.Fatalf("%q says %+v, in pieces %+v", text, whole, pieces)
		}
		for _, m := range whole {
			if strings.ContainsAny(m.id, "\x00\n") || strings.Contains(m.event, "\n") || m.data != "" && !m.hasData {
				t.Fatalf("%q says %+v", text, m)
			}
		}
		stop := errors.New("enough")
		if err := messages(strings.NewReader(text), func(message) error { return stop }); len(whole) > 0 && !errors.Is(err, stop) {
			t.Fatalf("goes on after an error: %v", err)
		}
	})
}
