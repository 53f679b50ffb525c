package prompting

import (
	"fmt"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Diff is the unified diff of two versions' text: messages, then variables. Empty when they are the same.
func Diff(fromName string, from Version, toName string, to Version) string {
	return udiff.Unified(fromName, toName, from.text(), to.text())
}

// text writes a version as lines that a person can compare.
func (v Version) text() string {
	var b strings.Builder
	for _, m := range v.Messages {
		fmt.Fprintf(&b, "--- %s\n%s\n", m.Role, strings.TrimSuffix(m.Text, "\n"))
	}
	for _, known := range v.Variables {
		switch {
		case known.Fixed():
			fmt.Fprintf(&b, "--- variable %s = %q\n", known.Name, known.Value)
		case known.Required:
			fmt.Fprintf(&b, "--- variable %s from %s, required\n", known.Name, known.Path)
		default:
			fmt.Fprintf(&b, "--- variable %s from %s\n", known.Name, known.Path)
		}
	}
	return b.String()
}
