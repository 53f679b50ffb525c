package condition

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sametick/sametick/pkg/event"
)

// Event is an event that programs read, parsed once for all of them. Immutable, safe for concurrent use.
type Event struct{ vars map[string]any }

// NewEvent parses an event's JSON, as event.AppendJSON writes it.
func NewEvent(text []byte) (*Event, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		return nil, fmt.Errorf("condition: event: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("condition: event: more than one value")
	}
	if fields == nil {
		return nil, errors.New("condition: event: null")
	}
	for k, v := range fields {
		fields[k] = exact(v)
	}
	if s, ok := fields["occurred_at"].(string); ok {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return nil, fmt.Errorf("condition: event: occurred_at: %w", err)
		}
		fields["occurred_at"] = at
	}
	return &Event{map[string]any{"event": fields}}, nil
}

// exact replaces numbers by int64 or uint64 where they are whole and fit, else by float64.
func exact(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return u
		}
		f, _ := strconv.ParseFloat(string(v), 64) // beyond a double it is infinite, which no output takes
		return f
	case map[string]any:
		for k, e := range v {
			v[k] = exact(e)
		}
	case []any:
		for i, e := range v {
			v[i] = exact(e)
		}
	}
	return v
}

// appendValue appends the JSON of a value, up to MaxOutput.
func appendValue(b []byte, v ref.Val) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case types.Null:
		b = append(b, "null"...)
	case types.Bool:
		b = strconv.AppendBool(b, bool(v))
	case types.Int:
		b = strconv.AppendInt(b, int64(v), 10)
	case types.Uint:
		b = strconv.AppendUint(b, uint64(v), 10)
	case types.Double:
		if math.IsInf(float64(v), 0) || math.IsNaN(float64(v)) {
			return nil, fmt.Errorf("%w: a number that JSON lacks", ErrValue)
		}
		b = append(b, jsontext.Float(float64(v)).String()...)
	case types.String:
		b, err = appendText(b, string(v))
	case types.Bytes:
		b, err = appendText(b, base64.StdEncoding.EncodeToString(v))
	case types.Timestamp:
		b, err = appendText(b, timeText(v.Time))
	case types.Duration:
		b, err = appendText(b, strconv.FormatFloat(v.Seconds(), 'f', -1, 64)+"s")
	case traits.Lister:
		b, err = appendList(b, v)
	case traits.Mapper:
		b, err = appendMap(b, v)
	default:
		return nil, fmt.Errorf("%w: %s has no JSON", ErrValue, v.Type().TypeName())
	}
	if err == nil && len(b) > MaxOutput {
		return nil, fmt.Errorf("%w: output", ErrLimit)
	}
	return b, err
}

// timeText shows a time as events do, and exactly where it has more than milliseconds.
func timeText(t time.Time) string {
	t = t.UTC()
	if t.Nanosecond()%int(time.Millisecond) == 0 {
		return t.Format(event.TimeLayout)
	}
	return t.Format(time.RFC3339Nano)
}

func appendText(b []byte, s string) ([]byte, error) {
	if len(b)+len(s) > MaxOutput {
		return nil, fmt.Errorf("%w: output", ErrLimit)
	}
	b, err := jsontext.AppendQuote(b, s)
	if err != nil { // no UTF-8
		return nil, fmt.Errorf("%w: text that is no UTF-8", ErrValue)
	}
	return b, nil
}

func appendList(b []byte, l traits.Lister) ([]byte, error) {
	b = append(b, '[')
	for it, first := l.Iterator(), true; it.HasNext() == types.True; first = false {
		if !first {
			b = append(b, ',')
		}
		var err error
		if b, err = appendValue(b, it.Next()); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, m traits.Mapper) ([]byte, error) {
	type entry struct {
		key   string
		value ref.Val
	}
	var entries []entry
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		key, ok := k.(types.String)
		if !ok {
			return nil, fmt.Errorf("%w: a key of type %s", ErrValue, k.Type().TypeName())
		}
		entries = append(entries, entry{string(key), m.Get(k)})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	b = append(b, '{')
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendText(b, e.key); err != nil {
			return nil, err
		}
		if b, err = appendValue(append(b, ':'), e.value); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}
