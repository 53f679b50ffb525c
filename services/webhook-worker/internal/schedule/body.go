package schedule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
)

// Compact takes the white space out of an event's JSON, once for all its deliveries: what is signed is small, and is
// what is sent. It checks nothing, which makes it some times faster than encoding/json's: the JSON is the database's.
func Compact(envelope []byte) []byte {
	out := make([]byte, 0, len(envelope))
	for rest := envelope; len(rest) > 0; {
		quote := bytes.IndexByte(rest, '"')
		if quote < 0 {
			return appendTokens(out, rest)
		}
		end := quote + 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end+1, len(rest))
		out = append(appendTokens(out, rest[:quote]), rest[quote:end]...)
		rest = rest[end:]
	}
	return out
}

// appendTokens appends what is outside of strings, but for white space (RFC 8259, section 2).
func appendTokens(out, text []byte) []byte {
	for _, c := range text {
		if c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			out = append(out, c)
		}
	}
	return out
}

// EventID reads the id that an event's JSON begins with (event.AppendJSON).
func EventID(envelope []byte) (int64, error) {
	rest, ok := bytes.CutPrefix(envelope, []byte(`{"id":`))
	end := bytes.IndexByte(rest, ',')
	if !ok || end < 0 {
		return 0, fmt.Errorf("schedule: an event does not begin with its id")
	}
	id, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("schedule: an event's id: %w", err)
	}
	return id, nil
}

// OccurredAt reads the time that an event's JSON ends with (event.AppendJSON).
func OccurredAt(envelope []byte) (string, error) {
	const key = `,"occurred_at":"`
	n := len(envelope) - len(key) - len(event.TimeLayout) + len("07:00") - len(`"}`) // a Z stands for the zone
	if n < 0 || !bytes.HasPrefix(envelope[n:], []byte(key)) || !bytes.HasSuffix(envelope, []byte(`Z"}`)) {
		return "", fmt.Errorf("schedule: an event does not end with its time")
	}
	return string(envelope[n+len(key) : len(envelope)-len(`"}`)]), nil
}

// Build makes the body of a delivery: of Standard Webhooks, {"type", "timestamp", "data"}, or a CloudEvents 1.0 in
// structured JSON. The data is the event, byte for byte, or what the endpoint's transform makes of it. An error is the
// transform's or the event's; it will not do better next time.
func Build(ctx context.Context, e *delivery.Endpoint, d *delivery.Delivery, c *condition.Compiler) ([]byte, error) {
	at, err := OccurredAt(d.Event)
	if err != nil {
		return nil, err
	}
	data := d.Event
	if e.Transform != "" {
		if data, err = transform(ctx, e.Transform, d.Event, c); err != nil {
			return nil, err
		}
	}
	b := make([]byte, 0, len(data)+256)
	if e.Format == delivery.CloudEvents {
		if b, err = appendCloudEvent(b, d, at); err != nil {
			return nil, err
		}
	} else {
		b = append(b, `{"type":"`...)
		b = append(b, d.EventType...)
		b = append(b, `","timestamp":"`...)
		b = append(b, at...)
		b = append(b, `","data":`...)
	}
	b = append(b, data...)
	return append(b, '}'), nil
}

func transform(ctx context.Context, text string, envelope []byte, c *condition.Compiler) ([]byte, error) {
	program, err := c.Compile(text, condition.Object)
	if err != nil {
		return nil, err
	}
	parsed, err := condition.NewEvent(envelope)
	if err != nil {
		return nil, err
	}
	return program.Object(ctx, parsed)
}

// appendCloudEvent appends the attributes, up to data's value. orgid and traceparent are extensions, the latter that of
// the distributed tracing extension.
func appendCloudEvent(b []byte, d *delivery.Delivery, at string) ([]byte, error) {
	subject, err := subjectOf(d.Event)
	if err != nil {
		return nil, err
	}
	org := strconv.FormatInt(d.OrgID, 10)
	b = append(b, `{"specversion":"1.0","id":"`...)
	b = strconv.AppendInt(b, d.EventID, 10)
	b = append(b, `","source":"/organizations/`+org+`","type":"`+d.EventType+`","subject":"`+subject+`","time":"`+at+`","orgid":"`+org+`"`...)
	if d.Traceparent != "" {
		quoted, err := json.Marshal(d.Traceparent)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"traceparent":`...), quoted...)
	}
	return append(b, `,"datacontenttype":"application/json","data":`...), nil
}

// subjectOf gives "task/234", of the fields that an event's JSON begins with.
func subjectOf(envelope []byte) (string, error) {
	const typeKey, idKey = `,"aggregate_type":"`, `","aggregate_id":`
	_, rest, ok := bytes.Cut(envelope, []byte(typeKey))
	name, rest, ok2 := bytes.Cut(rest, []byte(idKey))
	id, _, ok3 := bytes.Cut(rest, []byte(","))
	if !ok || !ok2 || !ok3 || !event.IsWord(string(name)) {
		return "", fmt.Errorf("schedule: an event does not begin with its aggregate")
	}
	return string(name) + "/" + string(id), nil
}
