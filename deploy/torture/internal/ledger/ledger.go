// Package ledger is what the writers know for certain: one line for each transaction, appended after
// Postgres answered its COMMIT (or did not). It is kept on disk, so that its size does not matter and
// a failed run can be read afterwards; it knows nothing of the relay.
//
// A line is `OUTCOME TX KIND ID:ORG:TYPE:AGGREGATE:SEQUENCE …`, for example
// `C 17 short 8401:1:task:234:7`.
package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Outcome of a transaction, as its writer saw it.
type Outcome byte

// The outcomes.
const (
	// Committed: Postgres acknowledged the COMMIT.
	Committed Outcome = 'C'
	// Aborted: no COMMIT was sent, or Postgres answered it with a rollback.
	Aborted Outcome = 'A'
	// Unknown: the connection died between COMMIT and its answer, or the commit was asynchronous. Only
	// Postgres can tell.
	Unknown Outcome = 'U'
)

// Event is what Postgres answered for a recorded event.
type Event struct {
	ID, OrgID   int64
	Type        string
	AggregateID int64
	Sequence    int64
}

// Entry is one transaction of a writer.
type Entry struct {
	Outcome Outcome
	// Tx is the harness' own number of the transaction, from 1; every event carries it in its payload.
	Tx     int64
	Kind   string
	Events []Event
}

// Counts tells what a ledger holds.
type Counts struct{ Committed, Aborted, Unknown, Events int64 }

// Ledger appends entries to a file. It is safe for concurrent use.
type Ledger struct {
	mu     sync.Mutex
	file   *os.File
	w      *bufio.Writer
	line   []byte
	counts Counts
}

// Create makes an empty ledger at path.
func Create(path string) (*Ledger, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create the ledger: %w", err)
	}
	return &Ledger{file: file, w: bufio.NewWriterSize(file, 1<<16)}, nil
}

// Append adds one entry.
func (l *Ledger) Append(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := fmt.Appendf(l.line[:0], "%c %d %s", e.Outcome, e.Tx, e.Kind)
	for _, v := range e.Events {
		b = fmt.Appendf(b, " %d:%d:%s:%d:%d", v.ID, v.OrgID, v.Type, v.AggregateID, v.Sequence)
	}
	b = append(b, '\n')
	l.line = b
	switch e.Outcome {
	case Committed:
		l.counts.Committed++
		l.counts.Events += int64(len(e.Events))
	case Aborted:
		l.counts.Aborted++
	case Unknown:
		l.counts.Unknown++
	}
	if _, err := l.w.Write(l.line); err != nil {
		return fmt.Errorf("append to the ledger: %w", err)
	}
	return nil
}

// Counts gives the totals so far.
func (l *Ledger) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

// Close writes what is buffered and closes the file.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	flushed, closed := l.w.Flush(), l.file.Close()
	if flushed != nil {
		return fmt.Errorf("close the ledger: %w", flushed)
	}
	return closed
}

// Read calls visit for each entry, in the order of the file. The entry's Events are reused.
func Read(r io.Reader, visit func(Entry) error) error {
	lines := bufio.NewReaderSize(r, 1<<16)
	var e Entry
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ledger line %d: %w", n, err)
		}
		if err := parse(strings.TrimSuffix(line, "\n"), &e); err != nil {
			return fmt.Errorf("ledger line %d: %w", n, err)
		}
		if err := visit(e); err != nil {
			return err
		}
	}
}

func parse(line string, e *Entry) error {
	words := strings.Split(line, " ")
	if len(words) < 3 || len(words[0]) != 1 || !slices.Contains([]Outcome{Committed, Aborted, Unknown}, Outcome(words[0][0])) {
		return fmt.Errorf("not an entry: %.100q", line)
	}
	tx, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		return fmt.Errorf("transaction number: %w", err)
	}
	e.Outcome, e.Tx, e.Kind, e.Events = Outcome(words[0][0]), tx, words[2], e.Events[:0]
	for _, word := range words[3:] {
		var (
			v     Event
			parts = strings.Split(word, ":")
		)
		if len(parts) != 5 {
			return fmt.Errorf("not an event: %.100q", word)
		}
		v.Type = parts[2]
		for i, to := range map[int]*int64{0: &v.ID, 1: &v.OrgID, 3: &v.AggregateID, 4: &v.Sequence} {
			if *to, err = strconv.ParseInt(parts[i], 10, 64); err != nil {
				return fmt.Errorf("event %.100q: %w", word, err)
			}
		}
		e.Events = append(e.Events, v)
	}
	return nil
}
