package app

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	"github.com/sametick/sametick/services/tick/internal/tail"
)

func (c *command) tail() *cobra.Command {
	var (
		types, aggregates, ids []string
		from                   string
		all, asJSON, noColor   bool
	)
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show events as they happen; reconnects by itself and misses nothing",
		Example: `  tick tail --type 'task.*' --type '*.post_archive'
  tick tail --all --json | jq .payload`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			if all {
				from = "0"
			}
			show := line{out: c.stdout, plain: noColor || color.NoColor}
			return tail.Follow(cmd.Context(), api, url.Values{"event_type": types, "aggregate_type": aggregates, "aggregate_id": ids}, from, tail.Handler{
				Event: func(e tail.Event, raw string) error {
					if asJSON {
						_, err := fmt.Fprintln(c.stdout, raw)
						return err
					}
					return show.event(e)
				},
				Notice: func(text string) { _, _ = fmt.Fprintln(c.stderr, "tick:", text) },
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&types, "type", nil, "only these event types, with wildcards: task.*, *.post_create")
	f.StringSliceVar(&aggregates, "aggregate-type", nil, "only these aggregate types")
	f.StringSliceVar(&ids, "aggregate-id", nil, "only these aggregate ids")
	f.StringVar(&from, "from", "", "begin after this position (an SSE id)")
	f.BoolVar(&all, "all", false, "begin with the oldest event that is kept")
	f.BoolVar(&asJSON, "json", false, "one JSON object a line, as the server sent it")
	f.BoolVar(&noColor, "no-color", false, "no colours (also NO_COLOR, and when not on a terminal)")
	cmd.MarkFlagsMutuallyExclusive("from", "all")
	return cmd
}

// line prints an event for a person.
type line struct {
	out   io.Writer
	plain bool
}

func (l line) event(e tail.Event) error {
	var context struct {
		ActorID      *int64                     `json:"actor_id"`
		RecordName   string                     `json:"record_name"`
		WorkflowName string                     `json:"workflow_name"`
		Changes      map[string]json.RawMessage `json:"changes"`
	}
	if err := json.Unmarshal(e.Payload, &context); err != nil {
		return fmt.Errorf("event %d has another payload than an EventContext: %w", e.ID, err)
	}
	text := fmt.Sprintf("%s  %s  %s#%d", e.OccurredAt.In(time.Local).Format("15:04:05.000"),
		l.paint(e.EventType), e.AggregateType, e.AggregateID)
	if context.RecordName != "" {
		text += "  " + printable(context.RecordName)
	}
	if context.WorkflowName != "" && e.AggregateType != "workflow" {
		text += "  in " + printable(context.WorkflowName)
	}
	if context.ActorID != nil {
		text += fmt.Sprintf("  by %d", *context.ActorID)
	}
	if changes := summary(context.Changes); changes != "" {
		text += "  " + printable(changes)
	}
	_, err := fmt.Fprintln(l.out, text)
	return err
}

// summary shows the first changed fields, before → after, and how many more there are.
func summary(changes map[string]json.RawMessage) string {
	const shown = 3
	var parts []string
	for i, field := range slices.Sorted(maps.Keys(changes)) {
		if i == shown {
			parts = append(parts, fmt.Sprintf("%d more", len(changes)-shown))
			break
		}
		var change struct{ Before, After json.RawMessage }
		if json.Unmarshal(changes[field], &change) != nil || change.Before == nil && change.After == nil {
			parts = append(parts, field)
			continue
		}
		parts = append(parts, fmt.Sprintf("%s: %s → %s", field, clip(change.Before), clip(change.After)))
	}
	return strings.Join(parts, ", ")
}

// clip keeps a value short enough for a line.
func clip(value json.RawMessage) string {
	const limit = 40
	if value == nil {
		return "null"
	}
	if runes := []rune(string(value)); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return string(value)
}

// paint colours an event type by what it means and pads it, so that lines align.
func (l line) paint(eventType string) string {
	padded := fmt.Sprintf("%-26s", eventType)
	if l.plain {
		return padded
	}
	action := eventType[strings.Index(eventType, ".")+1:]
	attribute := color.FgCyan
	switch {
	case strings.HasPrefix(action, "pre_"):
		attribute = color.FgHiBlack
	case action == "post_create", action == "completed", action == "passed", action == "approved":
		attribute = color.FgGreen
	case action == "post_update":
		attribute = color.FgYellow
	case action == "post_archive", action == "failed", action == "cancelled":
		attribute = color.FgRed
	}
	return color.New(attribute).Sprint(padded)
}

// printable keeps a name from steering the terminal: control characters are shown, not sent.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '�'
		}
		return r
	}, s)
}
