package prompting

import (
	"maps"
	"strings"

	"github.com/sametick/sametick/pkg/errs"
)

// LabelLatest follows the newest version by itself: it is never set.
const LabelLatest = "latest"

// LabelProduction is protected from the first time that it is set, unless that call says otherwise.
const LabelProduction = "production"

// Label is where a name points to.
type Label struct {
	Version int
	// Protected ones that hooks follow move only when backtested, or forced.
	Protected bool
}

// Labels is a template's whole state that hooks can follow. It is read with the hook, in one statement, and never
// kept: a prompt that outlives the move of its label is what must not be.
type Labels struct {
	// Latest is the newest version, from 1.
	Latest int
	Named  map[string]Label
}

// Errors of labels.
var (
	ErrNoLabel   = errs.New(errs.FailedPrecondition, "LABEL_UNKNOWN", "the template has no such label")
	ErrNoVersion = errs.New(errs.NotFound, "VERSION_UNKNOWN", "the template has no such version")
	ErrUntested  = errs.New(errs.FailedPrecondition, "BACKTEST_REQUIRED", "the label is protected and hooks follow it: backtest the version, or force the move")
)

// Resolve gives the version that a hook uses: a fixed one, or the one that its label has now.
func (l Labels) Resolve(version int, label string) (int, error) {
	switch {
	case label == LabelLatest:
		version = l.Latest
	case label != "":
		named, ok := l.Named[label]
		if !ok {
			return 0, ErrNoLabel
		}
		version = named.Version
	}
	if version < 1 || version > l.Latest {
		return 0, ErrNoVersion
	}
	return version, nil
}

// Move is the wish to set a label.
type Move struct {
	Label   string
	Version int
	// Protected is nil to leave it as it is.
	Protected *bool
	Force     bool
	// Tested tells that no enabled hook follows the label, or that the version was backtested for each that does.
	Tested bool
}

// Set gives the labels after a move; those before stay as they are.
func (l Labels) Set(m Move) (Labels, error) {
	if !isLabel(m.Label) {
		return l, errs.New(errs.Invalid, "INVALID_LABEL", "the label cannot be set").
			WithField("label", "INVALID_FORMAT", "letters a to z, digits, . _ and -, beginning with a letter, at most 63, and not latest")
	}
	if m.Version < 1 || m.Version > l.Latest {
		return l, ErrNoVersion
	}
	old, known := l.Named[m.Label]
	if known && old.Protected && m.Version != old.Version && !m.Tested && !m.Force {
		return l, ErrUntested
	}
	next := Label{m.Version, old.Protected || !known && m.Label == LabelProduction}
	if m.Protected != nil {
		next.Protected = *m.Protected
	}
	named := maps.Clone(l.Named)
	if named == nil {
		named = map[string]Label{}
	}
	named[m.Label] = next
	return Labels{l.Latest, named}, nil
}

func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s != LabelLatest && s[0] >= 'a' && s[0] <= 'z' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}
