package managing

import (
	"context"
	"errors"
	"fmt"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

func (f *faults) compile(v prompting.Version) error {
	_, err := prompting.Compile(v)
	for i, m := range v.Messages {
		if !storable(m.Text) {
			f.add(fmt.Sprintf("messages[%d].text", i), "INVALID_TEXT", "text in UTF-8 without the NUL character (U+0000)")
		}
	}
	for i, known := range v.Variables {
		if !storable(known.Value) || !storable(known.Path) {
			f.add(fmt.Sprintf("variables[%d]", i), "INVALID_TEXT", "text in UTF-8 without the NUL character (U+0000)")
		}
	}
	return f.take(err)
}

// CreateTemplate makes a template with its version 1.
func (s *Service) CreateTemplate(ctx context.Context, call hooks.Call, name, description string, v prompting.Version) (*hooks.Template, error) {
	f := &faults{}
	f.text("name", name, 1, maxName)
	f.text("description", description, 0, maxDescription)
	if err := errors.Join(f.compile(v), f.result()); err != nil {
		return nil, err
	}
	id, err := s.Store.NewID(ctx)
	if err != nil {
		return nil, err
	}
	return s.Store.CreateTemplate(ctx, call, id, name, description, v)
}

// Template gives one, also an archived one.
func (s *Service) Template(ctx context.Context, orgID, id int64) (*hooks.Template, error) {
	if err := one(id); err != nil {
		return nil, err
	}
	return s.Store.GetTemplate(ctx, orgID, id)
}

// Templates lists them.
func (s *Service) Templates(ctx context.Context, orgID int64, q Query) ([]*hooks.Template, int64, *string, error) {
	return listed(q, func(p store.Page) ([]*hooks.Template, int64, error) { return s.Store.ListTemplates(ctx, orgID, p) },
		func(t *hooks.Template) int64 { return t.ID })
}

// ArchiveTemplate ends one: hooks that are bound to it fail from then on, as their policies say.
func (s *Service) ArchiveTemplate(ctx context.Context, call hooks.Call, id int64) (*hooks.Template, error) {
	if err := one(id); err != nil {
		return nil, err
	}
	return s.Store.ArchiveTemplate(ctx, call, id)
}

// AddVersion gives a template its next version.
func (s *Service) AddVersion(ctx context.Context, call hooks.Call, id int64, v prompting.Version, note string) (*hooks.Version, error) {
	f := &faults{}
	f.id("template_id", id)
	f.text("note", note, 0, maxNote)
	if err := errors.Join(f.compile(v), f.result()); err != nil {
		return nil, err
	}
	return s.Store.AddVersion(ctx, call, id, v, note)
}

// Version gives one of a template.
func (s *Service) Version(ctx context.Context, orgID, id int64, number int) (*hooks.Version, error) {
	f := &faults{}
	f.id("template_id", id)
	f.id("version", int64(number))
	if err := f.result(); err != nil {
		return nil, err
	}
	return s.Store.GetVersion(ctx, orgID, id, number)
}

// Versions gives all of a template, newest first.
func (s *Service) Versions(ctx context.Context, orgID, id int64) ([]*hooks.Version, error) {
	f := &faults{}
	f.id("template_id", id)
	if err := f.result(); err != nil {
		return nil, err
	}
	if _, err := s.Store.GetTemplate(ctx, orgID, id); err != nil {
		return nil, err
	}
	return s.Store.ListVersions(ctx, orgID, id)
}

// Diff compares two versions, as a unified diff.
func (s *Service) Diff(ctx context.Context, orgID, id int64, from, to int) (string, error) {
	f := &faults{}
	f.id("template_id", id)
	f.id("from", int64(from))
	f.id("to", int64(to))
	if err := f.result(); err != nil {
		return "", err
	}
	a, err := s.Store.GetVersion(ctx, orgID, id, from)
	if err != nil {
		return "", err
	}
	b, err := s.Store.GetVersion(ctx, orgID, id, to)
	if err != nil {
		return "", err
	}
	return prompting.Diff(fmt.Sprintf("version %d", from), a.Version, fmt.Sprintf("version %d", to), b.Version), nil
}

// SetLabel moves a label. A protected one that enabled hooks follow moves only when each has a backtest of the version that
// counts (see store.Store.Untested), or when forced. Errors: reason BACKTEST_REQUIRED, and those of store.Store.MoveLabel.
func (s *Service) SetLabel(ctx context.Context, call hooks.Call, id int64, m prompting.Move) (*hooks.Template, error) {
	f := &faults{}
	f.id("template_id", id)
	f.id("version", int64(m.Version))
	if err := f.result(); err != nil {
		return nil, err
	}
	var missing []int64
	t, err := s.Store.MoveLabel(ctx, call, id, m, func(ctx context.Context, tx store.Tx, following []*hooks.Hook) (_ []int64, err error) {
		ids := []int64{}
		for _, h := range following {
			if h.InForce() {
				ids = append(ids, h.ID)
			}
		}
		missing, err = s.Store.Untested(ctx, tx, call.OrgID, id, m.Version, ids)
		return missing, err
	})
	if errors.Is(err, prompting.ErrUntested) {
		return nil, wanting(missing, m.Version)
	}
	return t, err
}

// Render shows the prompt that a past event gives; version 0 is the newest. No model is called.
func (s *Service) Render(ctx context.Context, orgID, id int64, number int, eventID int64) ([]prompting.Message, error) {
	f := &faults{}
	f.id("template_id", id)
	f.id("event_id", eventID)
	if number < 0 {
		f.add("version", "OUT_OF_RANGE", "a version, from 1, or 0 for the newest")
	}
	if err := f.result(); err != nil {
		return nil, err
	}
	if number == 0 {
		t, err := s.Store.GetTemplate(ctx, orgID, id)
		if err != nil {
			return nil, err
		}
		number = t.Latest
	}
	v, err := s.Store.GetVersion(ctx, orgID, id, number)
	if err != nil {
		return nil, err
	}
	t, err := s.Executor.Compiler.Template(orgID, v)
	if err != nil {
		return nil, err
	}
	past, err := s.Store.Event(ctx, orgID, eventID)
	if err != nil {
		return nil, err
	}
	text, err := document(&past)
	if err != nil {
		return nil, err
	}
	subject, err := prompting.ParseSubject(text)
	if err != nil {
		return nil, err
	}
	prompt, err := t.Render(ctx, subject, s.Executor.Mask)
	if err != nil {
		return nil, refused(err)
	}
	return prompt.Messages(), nil
}

// refused shows why something that was tried came to nothing.
func refused(err error) error {
	var failure *prompting.ModelError
	if errors.As(err, &failure) {
		return errs.New(errs.FailedPrecondition, "TRIAL_FAILED", prompting.Clean(failure.Text, prompting.MaxReason)).WithMeta("cause", failure.Cause)
	}
	return err
}
