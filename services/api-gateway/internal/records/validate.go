package records

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/schema"
)

// Limits of what is stored.
const (
	MaxName = 500 // characters
	// MaxExternalID keeps the unique index's rows under Postgres' limit of 2,704 bytes.
	MaxExternalID = 255 // characters
)

// faults collects the faulty fields of one request, so that the caller learns of all at once.
type faults struct {
	err *errs.Error
	// in goes before each field: where in the request it is.
	in string
	// schema is the type's, nil while it is unknown; refs are the records that attributes refer to.
	schema *schema.Schema
	refs   []schema.Ref
}

func (f *faults) add(field, reason, format string, args ...any) {
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_REQUEST", "the request has invalid fields")
	}
	f.err = f.err.WithField(f.in+field, reason, fmt.Sprintf(format, args...))
}

func (f *faults) result() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

// CheckName refuses what is no name of a record.
func CheckName(name string) error {
	var f faults
	f.name(name)
	return f.result()
}

func (f *faults) typ(typ string, found Found) {
	if f.schema = found.Schema; f.schema == nil {
		f.add("type", "UNKNOWN_TYPE", "%q is no type; one of: %s, or one of your own (/api/types)", clip(typ), strings.Join(event.Types(), ", "))
	}
}

// fits holds attributes, which are well formed, to the schema, and notes what they refer to.
func (f *faults) fits(attributes []byte) {
	if f.schema == nil {
		return
	}
	for _, fault := range f.schema.Check(attributes) {
		f.add(strings.TrimSuffix("attributes."+fault.Field, "."), fault.Reason, "%s", fault.Allowed)
	}
	f.refers(attributes)
}

func (f *faults) refers(attributes []byte) {
	if f.schema == nil {
		return
	}
	for _, r := range f.schema.References(attributes) {
		r.Field = f.in + "attributes." + r.Field
		f.refs = append(f.refs, r)
	}
}

// misfits gives what a change of attributes has made wrong; what was wrong before may stay.
func misfits(s *schema.Schema, before, after []byte) error {
	if s == nil {
		return nil
	}
	now := s.Check(after)
	if len(now) == 0 {
		return nil
	}
	was := s.Check(before)
	var f faults
	for _, fault := range now {
		if !slices.Contains(was, fault) {
			f.add(strings.TrimSuffix("attributes."+fault.Field, "."), fault.Reason, "%s", fault.Allowed)
		}
	}
	return f.result()
}

func (f *faults) name(name string) {
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		f.add("name", "REQUIRED", "1 to %d characters", MaxName)
	case n > MaxName:
		f.add("name", "TOO_LONG", "1 to %d characters, not %d", MaxName, n)
	default:
		f.text("name", name)
	}
}

// text refuses what Postgres cannot keep in a text.
func (f *faults) text(field, s string) {
	if !utf8.ValidString(s) {
		f.add(field, "INVALID_UTF8", "text in UTF-8")
	} else if strings.ContainsRune(s, 0) {
		f.add(field, "NUL_CHARACTER", "text without the NUL character (U+0000)")
	}
}

func (f *faults) reference(field string, id *int64) {
	if id != nil && *id < 1 {
		f.add(field, "OUT_OF_RANGE", "the id of a record, from 1")
	}
}

func (f *faults) id(id int64) {
	if id < 1 {
		f.add("id", "OUT_OF_RANGE", "the id of a record, from 1")
	}
}

func (f *faults) version(v *int64) {
	if v != nil && *v < 1 {
		f.add("version", "OUT_OF_RANGE", "a version, from 1")
	}
}

// attributes gives a faultless object with its numbers written plainly.
func (f *faults) attributes(text []byte) []byte {
	path, reason, allowed := checkAttributes(text)
	if reason == "" {
		if text = plainNumbers(text); len(text) > MaxAttributes {
			path, reason, allowed = "", "TOO_LARGE", "at most "+strconv.Itoa(MaxAttributes)+" bytes, with numbers written without exponents"
		}
	}
	if reason != "" {
		f.add("attributes"+path, reason, "%s", allowed)
		f.schema = nil // it would only say so again
	}
	return text
}

// ErrReference is the fault of a reference to a record that the organisation does not have.
func ErrReference(field string, typ event.Type) error {
	var f faults
	f.add(field, "REFERENCE_MISSING", "the id of an existing %s", typ)
	return f.result()
}

// CheckNames refuses references that were asked for and not found.
func CheckNames(refs Refs, names Names) error {
	if refs.WorkflowID != nil && names.Workflow == nil {
		return ErrReference("workflow_id", "workflow")
	}
	if refs.StepID != nil && names.Step == nil {
		return ErrReference("step_id", "step")
	}
	return nil
}

// maskFields are the fields that an update may name.
func maskFields() []string { return []string{"name", "attributes", "workflow_id", "step_id"} }

func (f *faults) mask(mask []string) {
	for _, field := range mask {
		if !slices.Contains(maskFields(), field) {
			f.add("update_mask", "UNKNOWN_FIELD", "%q cannot be changed; one of: %s", clip(field), strings.Join(maskFields(), ", "))
		}
	}
}

// clip shortens what a stranger sent and we quote.
func clip(s string) string {
	const limit = 64
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
