package records

import (
	"encoding/json"
	"math/big"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// tree is a JSON text with its numbers as they are written, or as fractions.
func tree(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return fractions(v)
}

func fractions(v any) any {
	switch v := v.(type) {
	case json.Number:
		r, _ := new(big.Rat).SetString(string(v))
		return r.RatString()
	case map[string]any:
		for name := range v {
			v[name] = fractions(v[name])
		}
	case []any:
		for i := range v {
			v[i] = fractions(v[i])
		}
	}
	return v
}

// merged is RFC 7396's MergePatch, as its section 2 writes it.
func merged(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out, ok := target.(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	for name, value := range p {
		if value == nil {
			delete(out, name)
		} else {
			out[name] = merged(out[name], value)
		}
	}
	return out
}

// FuzzMergePatch compares with the standard's own text, and asks that a patch twice is a patch once.
func FuzzMergePatch(f *testing.F) {
	for _, seed := range [][2]string{{`{"a":"b"}`, `{"a":"c"}`}, {`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`}, {`{"a":[{"b":"c"}]}`, `{"a":[1]}`}, {`{"e":null}`, `{"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`}, {`{"a":1}`, `{"a":{"b":{}}}`}, {`{"n":1e2}`, `{"n":100.0,"m":12345678901234567890.5}`}, {`{"é\u0041":1}`, `{"éA":null}`}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, target, patch string) {
		for _, text := range []string{target, patch} {
			if _, reason, _ := checkAttributes([]byte(text)); reason != "" || len(text) > 4096 {
				return
			}
		}
		got := mergePatch([]byte(target), []byte(patch))
		if want := merged(tree(t, []byte(target)), tree(t, []byte(patch))); !reflect.DeepEqual(tree(t, got), want) {
			t.Fatalf("%s with %s is %s, not %v", target, patch, got, want)
		}
		if twice := mergePatch(got, []byte(patch)); string(twice) != string(got) {
			t.Fatalf("%s with %s is %s, again %s", target, patch, got, twice)
		}
		before, after := diffObjects([]byte(target), got)
		if equal := reflect.DeepEqual(tree(t, []byte(target)), tree(t, got)); exactly(t, target, got) && (len(before)+len(after) == 0) != equal {
			t.Fatalf("%s to %s differs by %v, %v", target, got, before, after)
		}
	})
}

// exactly tells whether float64 holds all numbers of both: changes compare numbers as JSON readers do.
func exactly(t *testing.T, texts ...any) bool {
	t.Helper()
	for _, text := range texts {
		s, ok := text.(string)
		if b, isBytes := text.([]byte); !ok && isBytes {
			s = string(b)
		}
		for _, n := range regexp.MustCompile(`[0-9.eE+-]+`).FindAllString(s, -1) {
			if len(n) > 15 || strings.ContainsAny(n, "eE.") {
				return false
			}
		}
	}
	return true
}

// FuzzPlainNumbers: numbers keep their value and lose their exponents, so that what is limited is what is stored.
func FuzzPlainNumbers(f *testing.F) {
	for _, seed := range []string{`1e2`, `1.50e-1`, `-0`, `-0.0e5`, `1E+308`, `1e-308`, `0.000`, `123456789012345678901234567890.5e3`, `-1.25E-2`} {
		f.Add(`{"n":` + seed + `}`)
	}
	plain := regexp.MustCompile(`\A(0|-?(0|[1-9][0-9]*)(\.[0-9]+)?)\z`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, reason, _ := checkAttributes([]byte(text)); reason != "" {
			return
		}
		got := plainNumbers([]byte(text))
		if len(got) > MaxAttributes {
			return // refused next
		}
		if !reflect.DeepEqual(tree(t, []byte(text)), tree(t, got)) {
			t.Fatalf("%s became %s", text, got)
		}
		if _, reason, _ := checkAttributes(got); reason != "" && !strings.Contains(reason, "OUT_OF_RANGE") {
			t.Fatalf("%s became %s: %s", text, got, reason)
		}
		if again := plainNumbers(got); string(again) != string(got) {
			t.Fatalf("%s became %s, then %s", text, got, again)
		}
		d := jsontext.NewDecoder(strings.NewReader(string(got)))
		for {
			token, err := d.ReadToken()
			if err != nil {
				return
			}
			if token.Kind() == '0' && !plain.MatchString(token.String()) {
				t.Fatalf("%s became %s", text, got)
			}
		}
	})
}
