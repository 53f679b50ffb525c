package hooks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Answer is what a receiver made of a request.
type Answer byte

// The answers.
const (
	// Accepted: it is answered with a 2xx, which may be lost on its way.
	Accepted Answer = 'A'
	// Refused: an error, a reset or no answer.
	Refused Answer = 'R'
	// Forged: not signed for its endpoint, or not what it says it is.
	Forged Answer = 'F'
)

// Receipt is one request that reached a receiver.
type Receipt struct {
	Answer              Answer
	EndpointID, EventID int64
	// Hash is of the body's data, see envelope.Hash.
	Hash uint64
}

// Counts tells what a record holds.
type Counts struct{ Accepted, Refused, Forged int64 }

// Record keeps receipts in a file, in the order in which they came. A line is `A ENDPOINT EVENT HASH`, after F the reason. It
// is safe for concurrent use.
type Record struct {
	mu     sync.Mutex
	file   *os.File
	w      *bufio.Writer
	line   []byte
	counts Counts
}

// CreateRecord makes an empty record at path.
func CreateRecord(path string) (*Record, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create the record of webhooks: %w", err)
	}
	return &Record{file: file, w: bufio.NewWriterSize(file, 1<<16)}, nil
}

// Append adds a receipt; reason is why it is Forged.
func (r *Record) Append(got Receipt, reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line = fmt.Appendf(r.line[:0], "%c %d %d %d", got.Answer, got.EndpointID, got.EventID, got.Hash)
	if reason != "" {
		r.line = fmt.Appendf(r.line, " %.200q", reason)
	}
	r.line = append(r.line, '\n')
	switch got.Answer {
	case Accepted:
		r.counts.Accepted++
	case Refused:
		r.counts.Refused++
	case Forged:
		r.counts.Forged++
	}
	if _, err := r.w.Write(r.line); err != nil {
		return fmt.Errorf("append to the record of webhooks: %w", err)
	}
	return nil
}

// Counts gives the totals so far.
func (r *Record) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// Close writes what is buffered and closes the file.
func (r *Record) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := errors.Join(r.w.Flush(), r.file.Close()); err != nil {
		return fmt.Errorf("close the record of webhooks: %w", err)
	}
	return nil
}

// Read calls visit for each receipt, in the order in which they came.
func Read(in io.Reader, visit func(Receipt) error) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d of the record of webhooks: %w", n, err)
		}
		var got Receipt
		if _, err := fmt.Sscanf(line[1:], "%d %d %d", &got.EndpointID, &got.EventID, &got.Hash); err != nil {
			return fmt.Errorf("line %d of the record of webhooks: %w", n, err)
		}
		got.Answer = Answer(line[0])
		if err := visit(got); err != nil {
			return err
		}
	}
}
