package strict

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/go-json-experiment/json/jsontext"
)

// object is a JSON object, one level deep, in its order.
type object []member

type member struct {
	name  string
	value jsontext.Value
}

var errNoObject = errors.New("no object")

func parseObject(raw jsontext.Value) (object, error) {
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	if open, err := d.ReadToken(); err != nil || open.Kind() != '{' {
		return nil, errNoObject
	}
	var out object
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String() // before the next read, which ends the token's life
		value, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		out = append(out, member{key, value.Clone()})
	}
	return out, nil
}

func parseArray(raw jsontext.Value) ([]jsontext.Value, bool) {
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	if open, err := d.ReadToken(); err != nil || open.Kind() != '[' {
		return nil, false
	}
	var out []jsontext.Value
	for d.PeekKind() != ']' {
		value, err := d.ReadValue()
		if err != nil {
			return nil, false
		}
		out = append(out, value.Clone())
	}
	return out, true
}

func (o object) has(name string) bool { return o.get(name) != nil }

// get is nil where there is no such member.
func (o object) get(name string) jsontext.Value {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

func (o object) set(name string, value jsontext.Value) object {
	for i := range o {
		if o[i].name == name {
			o[i].value = value
			return o
		}
	}
	return append(o, member{name, value})
}

func (o object) names() []string {
	var out []string
	for _, m := range o {
		out = append(out, m.name)
	}
	return out
}

func (o object) raw() jsontext.Value {
	out := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			out = append(out, ',')
		}
		out, _ = jsontext.AppendQuote(out, m.name) // invalid UTF-8 has not passed the parser
		out = append(append(out, ':'), m.value...)
	}
	return append(out, '}')
}

func encodeArray(values []jsontext.Value) jsontext.Value {
	out := []byte{'['}
	for i, v := range values {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, v...)
	}
	return append(out, ']')
}

func encodeTexts(values []string) jsontext.Value {
	out := make([]jsontext.Value, len(values))
	for i, v := range values {
		out[i], _ = jsontext.AppendQuote(nil, v) // as above
	}
	return encodeArray(out)
}

func encodeTypes(kinds []string) jsontext.Value {
	if len(kinds) == 1 {
		one, _ := jsontext.AppendQuote(nil, kinds[0]) // as above
		return one
	}
	return encodeTexts(kinds)
}

func text(raw jsontext.Value) (s string) {
	_ = json.Unmarshal(raw, &s) // what is no text is "" and fits nothing
	return s
}

func texts(raw jsontext.Value) (list []string) {
	_ = json.Unmarshal(raw, &list) // as above
	return list
}
