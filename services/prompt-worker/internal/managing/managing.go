// Package managing has what callers do with templates, providers, MCP servers and hooks, and what they see of runs: it
// says which are valid, seals what is secret and asks store. The wire is grpcapi's, what hooks do is runs' and review's.
package managing

import (
	"context"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/keyring"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/reviewing"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// Limits of what is stored, in characters where it is a text.
const (
	maxName, maxDescription, maxNote = 200, 2000, 2000
	maxModel, maxKey                 = 200, 1024
	maxConcurrency                   = 1000
	defaultLimit, maxLimit           = 25, 100
)

// Tools tell what an MCP server offers.
type Tools interface {
	Offered(ctx context.Context, m *hooks.Server) ([]prompting.Tool, error)
}

// Service is what callers may do. Safe for concurrent use.
type Service struct {
	Store      *store.Store
	Ring       *keyring.Ring
	Conditions *condition.Compiler
	// CheckURL gives an address as it will be called; the error's text says what is wrong with it.
	CheckURL func(string) (string, error)
	// CheckCommand refuses a command that the operator does not allow an MCP server to be.
	CheckCommand func([]string) error
	Tools        Tools
	Executor     *runs.Executor
	// Reviews tries review hooks.
	Reviews *reviewing.Trier
}

// faults collects the faulty fields of one request, so that the caller learns of all at once.
type faults struct{ err *errs.Error }

func (f *faults) add(field, reason, format string, args ...any) {
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	}
	f.err = f.err.WithField(field, reason, fmt.Sprintf(format, args...))
}

// take adds the fields that another package has found; any other error is given back.
func (f *faults) take(err error) error {
	if err == nil {
		return nil
	}
	e := errs.From(err)
	if e.Kind != errs.Invalid {
		return err
	}
	for _, field := range e.Fields {
		f.add(field.Field, field.Reason, "%s", field.Description)
	}
	return nil
}

func (f *faults) result() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

// text refuses what is too long and what Postgres cannot keep in a text.
func (f *faults) text(field, s string, least, most int) {
	n := utf8.RuneCountInString(s)
	switch {
	case !storable(s):
		f.add(field, "INVALID_TEXT", "text in UTF-8 without the NUL character (U+0000)")
	case n < least:
		f.add(field, "REQUIRED", "%d to %d characters", least, most)
	case n > most:
		f.add(field, "TOO_LONG", "at most %d characters, not %d", most, n)
	}
}

func storable(s string) bool {
	for _, r := range s {
		if r == 0 {
			return false
		}
	}
	return utf8.ValidString(s)
}

func (f *faults) id(field string, id int64) {
	if id < 1 {
		f.add(field, "OUT_OF_RANGE", "an id, from 1")
	}
}

func (f *faults) between(field string, n, least, most int) {
	if n < least || n > most {
		f.add(field, "OUT_OF_RANGE", "%d to %d", least, most)
	}
}

func (f *faults) version(v *int64) {
	if v != nil && *v < 1 {
		f.add("version", "OUT_OF_RANGE", "a version, from 1")
	}
}

// one checks the id of a call that has nothing else.
func one(id int64) error {
	f := &faults{}
	f.id("id", id)
	return f.result()
}

// Query asks for a page of a list, newest first.
type Query struct {
	// Limit is 1 to 100; nil or 0 is 25.
	Limit           *int32
	Cursor          string
	IncludeArchived bool
}

func (f *faults) limit(limit *int32) int {
	if limit == nil || *limit == 0 {
		return defaultLimit
	}
	f.between("limit", int(*limit), 1, maxLimit)
	return int(*limit)
}

// listed gives a page of what find has, and where the next goes on; nil at the end.
func listed[T any](q Query, find func(store.Page) ([]T, int64, error), id func(T) int64) (page []T, total int64, next *string, err error) {
	f := &faults{}
	p := store.Page{Limit: f.limit(q.Limit) + 1, Archived: q.IncludeArchived} // one too many tells that there are more
	if q.Cursor != "" {
		if p.Before, err = strconv.ParseInt(q.Cursor, 10, 64); err != nil || p.Before < 1 {
			f.add("cursor", "INVALID_CURSOR", "a next_cursor of an answer")
		}
	}
	if err := f.result(); err != nil {
		return nil, 0, nil, err
	}
	page, total, err = find(p)
	if n := p.Limit - 1; err == nil && len(page) > n {
		page = page[:n]
		at := strconv.FormatInt(id(page[n-1]), 10)
		next = &at
	}
	return page, total, next, err
}
