// Package follow is the listeners: SSE clients that come and go, read fast or slowly, resume by
// Last-Event-ID, and write down every id that they are given. The record is kept on disk; what it
// should hold is for package judge to say.
package follow

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"

	"github.com/sametick/sametick/pkg/event"
)

// Kind of a record.
type Kind byte

// What a client can be told.
const (
	// Delivery is an event with its id.
	Delivery Kind = 'E'
	// Mark is a block with nothing but an id: everything up to there was filtered out.
	Mark Kind = 'I'
	// Reset says that ids were lost to retention.
	Reset Kind = 'R'
)

// Record is one thing that a client was told.
type Record struct {
	Kind     Kind
	Position int64
	// EventID and Hash (FNV-1a of the data line) are a Delivery's.
	EventID int64
	Hash    uint64
}

// Filter selects events; empty fields select all.
type Filter struct {
	AggregateType string
	AggregateID   int64
	EventTypes    []string
}

// Values is the filter as query parameters.
func (f Filter) Values() url.Values {
	v := url.Values{}
	if f.AggregateType != "" {
		v.Set("aggregate_type", f.AggregateType)
	}
	if f.AggregateID != 0 {
		v.Set("aggregate_id", strconv.FormatInt(f.AggregateID, 10))
	}
	for _, t := range f.EventTypes {
		v.Add("event_type", t)
	}
	return v
}

// Matches tells whether an event is selected.
func (f Filter) Matches(eventType, aggregateType string, aggregateID int64) bool {
	if f.AggregateType != "" && f.AggregateType != aggregateType || f.AggregateID != 0 && f.AggregateID != aggregateID {
		return false
	}
	for _, t := range f.EventTypes {
		if p, ok := event.ParsePattern(t); ok && p.Match(eventType) {
			return true
		}
	}
	return len(f.EventTypes) == 0
}

// Life is one client from its first connection to its last: one organisation, one filter, one record.
type Life struct {
	// Name is for diagnostics.
	Name   string
	OrgID  int64
	Filter Filter
	// Start is the Last-Event-ID of the first connection; -1 when it had none.
	Start int64
	// ToTheEnd tells that the client was still there when all had come to rest.
	ToTheEnd bool
	// Path is the file of its record.
	Path string
}

// recorder writes a life's record: a kind byte, the position, and for a delivery the event's id (both
// as varints) and the hash.
type recorder struct {
	file *os.File
	w    *bufio.Writer
	buf  []byte
}

func newRecorder(path string) (*recorder, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create a client's record: %w", err)
	}
	return &recorder{file: file, w: bufio.NewWriterSize(file, 4096)}, nil
}

func (r *recorder) write(rec Record) error {
	b := binary.AppendUvarint(append(r.buf[:0], byte(rec.Kind)), uint64(rec.Position))
	if rec.Kind == Delivery {
		b = binary.AppendUvarint(b, uint64(rec.EventID))
		b = binary.LittleEndian.AppendUint64(b, rec.Hash)
	}
	r.buf = b
	_, err := r.w.Write(b)
	return err
}

func (r *recorder) close() error { return errors.Join(r.w.Flush(), r.file.Close()) }

// ReadRecord calls visit for each record of the life, in order.
func (l *Life) ReadRecord(visit func(Record) error) error {
	file, err := os.Open(l.Path)
	if err != nil {
		return fmt.Errorf("open a client's record: %w", err)
	}
	err = readRecords(bufio.NewReaderSize(file, 1<<16), visit)
	return errors.Join(err, file.Close())
}

func readRecords(r *bufio.Reader, visit func(Record) error) error {
	for {
		kind, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		rec := Record{Kind: Kind(kind)}
		position, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("position of a record: %w", err)
		}
		rec.Position = int64(position)
		if rec.Kind == Delivery {
			id, err := binary.ReadUvarint(r)
			if err != nil {
				return fmt.Errorf("event id of a record: %w", err)
			}
			rec.EventID = int64(id)
			var hash [8]byte
			if _, err := io.ReadFull(r, hash[:]); err != nil {
				return fmt.Errorf("hash of a record: %w", err)
			}
			rec.Hash = binary.LittleEndian.Uint64(hash[:])
		}
		if err := visit(rec); err != nil {
			return err
		}
	}
}
