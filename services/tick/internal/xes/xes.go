// Package xes reads event logs in XES (IEEE 1849-2016), trace by trace: memory is that of one trace.
// Events outside any trace belong to no case and are stepped over too. Extensions, globals, classifiers and the log's own attributes are stepped over; attributes of traces
// and events keep their type and nesting.
package xes

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/html/charset"
)

// Keys of the standard extensions that an importer gives a meaning.
const (
	Name       = "concept:name"
	Transition = "lifecycle:transition"
	Timestamp  = "time:timestamp"
	Resource   = "org:resource"
	Group      = "org:group"
)

// Attribute is one typed value, with the attributes that are nested in it.
type Attribute struct {
	Key string
	// Value is a string (of types string, date and id), json.Number, bool, or nil for a list or container.
	Value    any
	Children []Attribute
	list     bool
}

// Attributes are in the order of the file.
type Attributes []Attribute

// Event is one event of a trace.
type Event struct{ Attributes Attributes }

// Trace is one case.
type Trace struct {
	Attributes Attributes
	Events     []Event
}

// String gives a string attribute, empty when there is none.
func (a Attributes) String(key string) string {
	for i := range a {
		if s, ok := a[i].Value.(string); ok && a[i].Key == key {
			return s
		}
	}
	return ""
}

// Map gives the attributes as JSON values. One with nested attributes becomes an object of `value` and
// `attributes`, a list an array, a container an object; of two with one key the later one is kept.
func (a Attributes) Map() map[string]any {
	m := make(map[string]any, len(a))
	for i := range a {
		m[a[i].Key] = a[i].json()
	}
	return m
}

func (a *Attribute) json() any {
	switch {
	case a.list:
		items := make([]any, len(a.Children))
		for i := range a.Children {
			items[i] = map[string]any{a.Children[i].Key: a.Children[i].json()}
		}
		return items
	case len(a.Children) == 0:
		return a.Value
	case a.Value == nil:
		return Attributes(a.Children).Map()
	default:
		return map[string]any{"value": a.Value, "attributes": Attributes(a.Children).Map()}
	}
}

// maxDepth bounds how deep attributes nest; real logs have two or three levels.
const maxDepth = 64

// Read yields the traces of a log, plain or gzipped (told by content). An error ends the sequence; one in
// the log is an *Error.
func Read(r io.Reader) iter.Seq2[Trace, error] {
	return func(yield func(Trace, error) bool) {
		plain, err := decompress(r)
		if err != nil {
			yield(Trace{}, err)
			return
		}
		p := &parser{d: xml.NewDecoder(plain)}
		p.d.CharsetReader = charset.NewReaderLabel // older tools write ISO-8859-1
		if err := p.log(func(t Trace) bool { return yield(t, nil) }); err != nil && !errors.Is(err, errStopped) {
			yield(Trace{}, p.locate(err))
		}
	}
}

func decompress(r io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, err := in.Peek(2); err != nil || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("not a whole gzip file: %w", err)
	}
	return z, nil
}

var errStopped = errors.New("stopped")

type parser struct{ d *xml.Decoder }

// Error is a fault of the log and where it was found, both from 1.
type Error struct {
	Line, Column int
	Err          error
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %v", e.Line, e.Column, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

func (p *parser) locate(err error) error {
	line, column := p.d.InputPos()
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		err = errors.New(syntax.Msg) // Error says the line
	}
	// The decoder tells a cut file by this text alone.
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || syntax != nil && syntax.Msg == "unexpected EOF" {
		err = errors.New("the file ends in the middle of the log")
	}
	return &Error{Line: line, Column: column, Err: err}
}

// log reads <log> … </log> and hands each trace to take.
func (p *parser) log(take func(Trace) bool) error {
	root, err := p.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if root == nil || root.Name.Local != "log" {
		return errors.New("expected <log>, the root of an XES file")
	}
	for {
		start, err := p.next()
		switch {
		case err != nil:
			return err
		case start == nil:
			return nil
		case start.Name.Local != "trace":
			if err := p.d.Skip(); err != nil {
				return err
			}
			continue
		}
		t, err := p.trace()
		if err != nil {
			return err
		}
		if !take(t) {
			return errStopped
		}
	}
}

func (p *parser) trace() (Trace, error) {
	var t Trace
	for {
		start, err := p.next()
		if err != nil || start == nil {
			return t, err
		}
		if start.Name.Local == "event" {
			attributes, err := p.attributes(0)
			if err != nil {
				return t, err
			}
			t.Events = append(t.Events, Event{attributes})
			continue
		}
		a, err := p.attribute(start, 0)
		if err != nil {
			return t, err
		}
		t.Attributes = append(t.Attributes, a)
	}
}

// attributes reads up to the end of the element that is open.
func (p *parser) attributes(depth int) (Attributes, error) {
	var all Attributes
	for {
		start, err := p.next()
		if err != nil || start == nil {
			return all, err
		}
		a, err := p.attribute(start, depth)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
}

func (p *parser) attribute(start *xml.StartElement, depth int) (Attribute, error) {
	a := Attribute{list: start.Name.Local == "list"}
	kind := start.Name.Local
	if depth > maxDepth {
		return a, fmt.Errorf("attributes nest deeper than %d", maxDepth)
	}
	var text string
	var hasValue bool
	for _, x := range start.Attr {
		switch x.Name.Local {
		case "key":
			a.Key = x.Value
		case "value":
			text, hasValue = x.Value, true
		}
	}
	if kind != "values" && a.Key == "" {
		return a, fmt.Errorf("<%s> has no key", kind)
	}
	var err error
	if a.Value, err = value(kind, text, hasValue); err != nil {
		return a, fmt.Errorf("attribute %q: %w", a.Key, err)
	}
	if a.Children, err = p.attributes(depth + 1); err != nil {
		return a, err
	}
	// <values> holds a list's items: they are the list's own children here.
	if a.list && len(a.Children) == 1 && a.Children[0].Key == "" {
		a.Children = a.Children[0].Children
	}
	return a, nil
}

// value reads an attribute's text by its element's name (IEEE 1849, 4.5).
func value(kind, text string, has bool) (any, error) {
	switch kind {
	case "list", "container", "values":
		return nil, nil
	case "string", "date", "int", "float", "boolean", "id":
		if !has {
			return nil, fmt.Errorf("<%s> has no value", kind)
		}
	default:
		return nil, fmt.Errorf("<%s> is no attribute: expected string, date, int, float, boolean, id, list or container", kind)
	}
	switch kind {
	case "date":
		if !isDate(text) {
			return nil, fmt.Errorf("%q is no date such as 2011-10-11T13:45:40.276+02:00", text)
		}
	case "int":
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return nil, fmt.Errorf("%q is no whole number", text)
		}
		return json.Number(strings.TrimPrefix(canonicalInt(text), "+")), nil
	case "float":
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return text, nil
		}
		return f, nil
	case "boolean":
		switch text {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", text)
	}
	return text, nil
}

// isDate tells an xs:dateTime, whose zone may be missing; the text is kept as it is.
func isDate(text string) bool {
	_, zoned := time.Parse(time.RFC3339Nano, text)
	_, local := time.Parse("2006-01-02T15:04:05.999999999", text)
	return zoned == nil || local == nil
}

// canonicalInt drops leading zeros, which JSON has not.
func canonicalInt(text string) string {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return text
	}
	return strconv.FormatInt(n, 10)
}

// next gives the next start element, or nil at the end of the element that is open.
func (p *parser) next() (*xml.StartElement, error) {
	for {
		token, err := p.d.Token()
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			return &t, nil
		case xml.EndElement:
			return nil, nil
		}
	}
}
