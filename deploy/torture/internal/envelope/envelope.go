// Package envelope reads just enough of an event's JSON to know it again: its id and its bytes.
package envelope

import (
	"bytes"
	"hash/fnv"
	"strconv"
)

// Hash condenses an event's JSON (FNV-1a, 64 bits): equal bytes, equal hash.
func Hash(envelope []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(envelope) // a hash never fails
	return h.Sum64()
}

// EventID reads the event id at the start of an event's JSON; 0 when there is none.
func EventID(envelope []byte) int64 {
	rest, ok := bytes.CutPrefix(envelope, []byte(`{"id":`))
	if !ok {
		return 0
	}
	end := bytes.IndexByte(rest, ',')
	if end < 0 {
		return 0
	}
	id, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	if err != nil {
		return 0
	}
	return id
}
