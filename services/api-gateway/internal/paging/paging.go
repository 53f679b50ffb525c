// Package paging has the one rule for pages of lists: limit and page, from 1.
package paging

import (
	"fmt"

	"github.com/sametick/sametick/pkg/errs"
)

// MaxPage bounds the rows that a deep page makes the database pass over.
const MaxPage = 1_000_000

// Page is one page of a list.
type Page struct{ Limit, Offset int64 }

// Rule is what a list allows.
type Rule struct {
	// Default and Max are the limit when none is given and the largest.
	Default, Max int32
}

// Standard is the rule of the specification, History that of one entity's history.
var (
	Standard = Rule{Default: 25, Max: 100}
	History  = Rule{Default: 1000, Max: 1000}
)

// Allowed says what a list allows for the field limit or page.
func (r Rule) Allowed(field string) string {
	if field == "limit" {
		return fmt.Sprintf("1 to %d", r.Max)
	}
	return fmt.Sprintf("1 to %d", MaxPage)
}

// Page reads the two parameters; nil means that one was not given. The error names each that is out
// of range.
func (r Rule) Page(limit, page *int32) (Page, error) {
	l, p := r.Default, int32(1)
	if limit != nil {
		l = *limit
	}
	if page != nil {
		p = *page
	}
	var err *errs.Error
	refuse := func(field string) {
		if err == nil {
			err = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
		}
		err = err.WithField(field, "OUT_OF_RANGE", r.Allowed(field))
	}
	if l < 1 || l > r.Max {
		refuse("limit")
	}
	if p < 1 || p > MaxPage {
		refuse("page")
	}
	if err != nil {
		return Page{}, err
	}
	return Page{Limit: int64(l), Offset: int64(p-1) * int64(l)}, nil
}
