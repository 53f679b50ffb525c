package records

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// decide is the pure part of an update: what becomes of the current record.
func (u *Update) decide(c Current) (*Change, error) {
	if err := checkMutable(c.Record, u.Version); err != nil {
		return nil, err
	}
	if err := CheckNames(u.refs(), c.Names); err != nil {
		return nil, err
	}
	next := c.Record
	diff := changes{}
	if u.has("name") {
		next.Name = u.Name
		diff.set("name", c.Name, next.Name, c.Name == next.Name)
	}
	if u.has("workflow_id") {
		next.WorkflowID = u.WorkflowID
		diff.set("workflow_id", c.WorkflowID, next.WorkflowID, same(c.WorkflowID, next.WorkflowID))
	}
	if u.has("step_id") {
		next.StepID = u.StepID
		diff.set("step_id", c.StepID, next.StepID, same(c.StepID, next.StepID))
	}
	if u.has("attributes") {
		next.Attributes = []byte("{}")
		if u.Attributes != nil {
			next.Attributes = mergePatch(c.Attributes, u.Attributes)
		}
		// Two patches, each within the limits, can add up to more.
		var f faults
		if f.attributes(next.Attributes); f.err != nil {
			return nil, f.err
		}
		if err := misfits(u.schema, c.Attributes, next.Attributes); err != nil {
			return nil, err
		}
		before, after := diffObjects(c.Attributes, next.Attributes)
		diff.set("attributes", json.RawMessage(encode(before)), json.RawMessage(encode(after)), len(before)+len(after) == 0)
	}
	if len(diff) == 0 {
		return nil, nil
	}
	if err := u.checkGoverned(c, next); err != nil {
		return nil, err
	}
	names := c.Names
	if next.WorkflowID == nil {
		names.Workflow = nil
	}
	if next.StepID == nil {
		names.Step = nil
	}
	next.UpdatedAt = c.Now
	return newChange(event.Update, next, names, diff), nil
}

// checkGoverned keeps what a workflow's definition rules from being changed past it.
func (u *Update) checkGoverned(c Current, next Record) error {
	if !c.Governed {
		return nil
	}
	before, after := diffObjects(c.Attributes, next.Attributes)
	for _, name := range []string{"status", "key", "definition_id", "definition_version"} {
		if before[name] != nil || after[name] != nil {
			return errGoverned("attributes." + name)
		}
	}
	if c.Type == "step" && !same(c.WorkflowID, next.WorkflowID) {
		return errGoverned("workflow_id")
	}
	return nil
}

func errGoverned(field string) error {
	return errs.New(errs.FailedPrecondition, "GOVERNED_BY_WORKFLOW", "a workflow definition moves this record: use /api/workflows/{id}, its steps' :pass, :fail, :approve, or :cancel").
		WithField(field, "GOVERNED_BY_WORKFLOW", "as it is")
}

// running tells whether a governed record has not ended: its status is kept in its attributes.
func running(c Current) bool {
	status := string(object(c.Attributes)["status"])
	return c.Governed && slices.Contains([]string{`"running"`, `"pending"`, `"active"`, `"awaiting_approval"`}, status)
}

func archive(version *int64) Decide {
	return func(c Current) (*Change, error) {
		if c.ArchivedAt != nil && (version == nil || *version == c.Version) {
			return nil, nil
		}
		if err := checkMutable(c.Record, version); err != nil {
			return nil, err
		}
		if running(c) {
			return nil, errGoverned("archived_at")
		}
		next := c.Record
		next.ArchivedAt, next.UpdatedAt = &c.Now, c.Now
		diff := changes{}
		diff.set("archived_at", nil, c.Now.UTC().Format(event.TimeLayout), false)
		return newChange(event.Archive, next, c.Names, diff), nil
	}
}

func restore(version *int64) Decide {
	return func(c Current) (*Change, error) {
		if version != nil && *version != c.Version {
			return nil, checkMutable(c.Record, version)
		}
		if c.ArchivedAt == nil {
			return nil, nil
		}
		next := c.Record
		next.ArchivedAt, next.UpdatedAt = nil, c.Now
		diff := changes{}
		diff.set("archived_at", c.ArchivedAt.UTC().Format(event.TimeLayout), nil, false)
		return newChange(event.Update, next, c.Names, diff), nil
	}
}

func newChange(operation string, next Record, names Names, diff changes) *Change {
	next.Version++
	return &Change{Operation: operation, Next: next, Names: names, Changes: encode(diff)}
}

func checkMutable(r Record, version *int64) error {
	if version != nil && *version != r.Version {
		return errs.New(errs.Aborted, "VERSION_MISMATCH", "the record has changed since that version").
			WithMeta("version", itoa(r.Version))
	}
	if r.ArchivedAt != nil {
		return errs.New(errs.FailedPrecondition, "RECORD_ARCHIVED", "the record is archived").
			WithMeta("archived_at", r.ArchivedAt.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// changes maps each changed field to what it was and what it is.
type changes map[string]jsontext.Value

type sides struct {
	Before any `json:"before"`
	After  any `json:"after"`
}

func (c changes) set(field string, before, after any, unchanged bool) {
	if unchanged {
		return
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(sides{before, after}); err == nil { // strings, ids and valid JSON always encode
		c[field] = bytes.TrimSpace(b.Bytes())
	}
}

func same(a, b *int64) bool { return a == b || (a != nil && b != nil && *a == *b) }

// has tells whether the update names a field.
func (u *Update) has(field string) bool { return slices.Contains(u.Mask, field) }

// refs are the references that the update sets; those it clears or leaves alone need no look-up.
func (u *Update) refs() (r Refs) {
	if u.has("workflow_id") {
		r.WorkflowID = u.WorkflowID
	}
	if u.has("step_id") {
		r.StepID = u.StepID
	}
	return r
}
