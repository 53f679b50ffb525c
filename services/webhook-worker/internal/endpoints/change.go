package endpoints

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// Name is what events call an endpoint: its description, or else the host that it sends to. The rest of a URL may be
// a secret.
func (e *Endpoint) Name() string {
	if e.Description != "" {
		return e.Description
	}
	return hostOf(e.URL)
}

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

// changes maps each changed field to what it was and what it is, as far as events may show it.
type changes map[string]json.RawMessage

func (c changes) set(field string, before, after any) {
	if reflect.DeepEqual(before, after) {
		return
	}
	c.put(field, before, after)
}

func (c changes) put(field string, before, after any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	sides := struct {
		Before any `json:"before"`
		After  any `json:"after"`
	}{before, after}
	if err := e.Encode(sides); err == nil { // strings, numbers and lists of them always encode
		c[field] = bytes.TrimSpace(b.Bytes())
	}
}

func (c changes) json() json.RawMessage {
	if len(c) == 0 {
		return nil
	}
	text, err := json.Marshal(map[string]json.RawMessage(c))
	if err != nil { // of valid JSON
		return nil
	}
	return text
}

// difference tells what changes between two settings. Who reads events may not know what the endpoint's owner knows:
// of URLs they see the host, of headers the names.
func difference(before, after *Settings) changes {
	c := changes{}
	c.set("description", before.Description, after.Description)
	c.set("event_types", list(before.EventTypes), list(after.EventTypes))
	c.set("aggregate_types", list(before.AggregateTypes), list(after.AggregateTypes))
	c.set("aggregate_ids", list(before.AggregateIDs), list(after.AggregateIDs))
	c.set("filter", before.Filter, after.Filter)
	c.set("transform", before.Transform, after.Transform)
	c.set("format", before.Format, after.Format)
	c.set("rate_limit", before.RateLimit, after.RateLimit)
	c.set("ordered", before.Ordered, after.Ordered)
	c.set("auth", before.AuthKind, after.AuthKind)
	c.set("client_certificate", before.ClientCertificate, after.ClientCertificate)
	c.set("asymmetric", before.Asymmetric, after.Asymmetric)
	if before.URL != after.URL {
		c.put("url", hostOf(before.URL), hostOf(after.URL))
	}
	if !maps.Equal(before.Headers, after.Headers) {
		c.put("headers", slices.Sorted(maps.Keys(before.Headers)), slices.Sorted(maps.Keys(after.Headers)))
	}
	return c
}

// list is never nil: JSON shows [].
func list[T any](values []T) []T {
	if values == nil {
		return []T{}
	}
	return values
}

// hidden stands where a change may say that there is a secret.
const hidden = "hidden"

func phases(operation string) []string { return []string{event.Pre(operation), event.Post(operation)} }

func mutable(c *Current, version *int64) error {
	if version != nil && *version != c.Version {
		return errs.New(errs.Aborted, "VERSION_MISMATCH", "the endpoint has changed since that version").
			WithMeta("version", strconv.FormatInt(c.Version, 10))
	}
	if c.ArchivedAt != nil {
		return errs.New(errs.FailedPrecondition, "ENDPOINT_ARCHIVED", "the endpoint is archived").
			WithMeta("archived_at", c.ArchivedAt.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// CheckReady refuses to send to an endpoint that takes nothing.
func CheckReady(e *Endpoint) error {
	c := &Current{Endpoint: *e}
	if err := mutable(c, nil); err != nil {
		return err
	}
	if !e.Enabled {
		return errs.New(errs.FailedPrecondition, "ENDPOINT_DISABLED", "the endpoint is disabled").WithMeta("disabled_reason", e.DisabledReason)
	}
	return nil
}

func archive(version *int64) Decide {
	return func(c Current) (*Change, error) {
		if c.ArchivedAt != nil && (version == nil || *version == c.Version) {
			return nil, nil
		}
		if err := mutable(&c, version); err != nil {
			return nil, err
		}
		diff := changes{}
		diff.put("archived_at", nil, c.Now.UTC().Format(event.TimeLayout))
		ch := c.next(diff, phases(event.Archive)...)
		ch.Next.ArchivedAt = &c.Now
		return ch, nil
	}
}

// restore takes an endpoint out of the archive as it was: one that was disabled stays so. The days of failing are counted
// anew, or one that failed before would be disabled by its first failure.
func restore(version *int64) Decide {
	return func(c Current) (*Change, error) {
		if version != nil && *version != c.Version {
			return nil, mutable(&c, version)
		}
		if c.ArchivedAt == nil {
			return nil, nil
		}
		diff := changes{}
		diff.put("archived_at", c.ArchivedAt.UTC().Format(event.TimeLayout), nil)
		ch := c.next(diff, append(phases(event.Update), delivery.ActionRestored)...)
		ch.Next.ArchivedAt, ch.Next.FailingSince = nil, nil
		return ch, nil
	}
}

// enable is also asked for what is enabled and fails: its days are counted anew.
func enable(version *int64) Decide {
	return func(c Current) (*Change, error) {
		if err := mutable(&c, version); err != nil {
			return nil, err
		}
		if c.Enabled && c.FailingSince == nil {
			return nil, nil
		}
		diff := changes{}
		diff.put("enabled", c.Enabled, true)
		ch := c.next(diff, append(phases(event.Update), delivery.ActionEnabled)...)
		ch.Next.Enabled, ch.Next.DisabledReason, ch.Next.DisabledAt, ch.Next.FailingSince = true, "", nil, nil
		return ch, nil
	}
}

func disable(version *int64) Decide {
	return func(c Current) (*Change, error) {
		if err := mutable(&c, version); err != nil {
			return nil, err
		}
		if !c.Enabled {
			return nil, nil
		}
		diff := changes{}
		diff.put("enabled", true, false)
		ch := c.next(diff, append(phases(event.Update), delivery.ActionDisabled)...)
		ch.Next.Enabled, ch.Next.DisabledReason, ch.Next.DisabledAt = false, delivery.ByHand, &c.Now
		ch.Extra = extra("reason", delivery.ByHand)
		return ch, nil
	}
}

// next begins a change of the endpoint.
func (c *Current) next(diff changes, actions ...string) *Change {
	ch := &Change{Next: c.Endpoint, Actions: actions, Changes: diff.json()}
	ch.Next.Version++
	ch.Next.UpdatedAt = c.Now
	return ch
}

// told is a change of nothing but what the events say: the version stays.
func told(c *Current, action string, extra json.RawMessage) *Change {
	return &Change{Next: c.Endpoint, Actions: []string{action}, Extra: extra}
}

func extra(key string, value any) json.RawMessage { return extras(map[string]any{key: value}) }

func extras(values map[string]any) json.RawMessage {
	text, err := json.Marshal(values)
	if err != nil { // of numbers and texts
		return nil
	}
	return text
}
