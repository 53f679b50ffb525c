package prompts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Answer is what the model made of a call.
type Answer byte

// The answers.
const (
	// Answered: with a text, which may be lost on its way.
	Answered Answer = 'A'
	// Refused: with an error that says that nothing was done.
	Refused Answer = 'R'
	// Silent: a reset or no answer, so that nobody knows.
	Silent Answer = 'S'
	// Foreign: of no hook or no event.
	Foreign Answer = 'F'
)

// Call is one call that reached the model.
type Call struct {
	Answer Answer
	// Hook is the plan's number.
	Hook    int
	EventID int64
}

// Counts tells what a record holds.
type Counts struct{ Answered, Refused, Silent, Foreign int64 }

// Record keeps calls in a file, in the order in which they came. A line is `A HOOK EVENT`. It is safe for concurrent use.
type Record struct {
	mu     sync.Mutex
	file   *os.File
	w      *bufio.Writer
	counts Counts
}

// CreateRecord makes an empty record at path.
func CreateRecord(path string) (*Record, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create the record of calls: %w", err)
	}
	return &Record{file: file, w: bufio.NewWriterSize(file, 1<<16)}, nil
}

// Append adds a call.
func (r *Record) Append(c Call) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch c.Answer {
	case Answered:
		r.counts.Answered++
	case Refused:
		r.counts.Refused++
	case Silent:
		r.counts.Silent++
	case Foreign:
		r.counts.Foreign++
	}
	if _, err := fmt.Fprintf(r.w, "%c %d %d\n", c.Answer, c.Hook, c.EventID); err != nil {
		return fmt.Errorf("append to the record of calls: %w", err)
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
		return fmt.Errorf("close the record of calls: %w", err)
	}
	return nil
}

// Read calls visit for each call, in the order in which they came.
func Read(in io.Reader, visit func(Call)) error {
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		var c Call
		if _, err := fmt.Sscanf(lines.Text(), "%c %d %d", &c.Answer, &c.Hook, &c.EventID); err != nil {
			return fmt.Errorf("line %d of the record of calls: %w", n, err)
		}
		visit(c)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the record of calls: %w", err)
	}
	return nil
}
