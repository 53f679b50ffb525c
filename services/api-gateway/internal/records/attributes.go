package records

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of attributes.
const (
	MaxAttributes = 256 << 10 // bytes
	MaxDepth      = 32        // of nested objects and arrays
	// Postgres keeps numbers in full, so 1e100000 would come back as 100,001 digits.
	maxExponent = 308
	maxDigits   = 1000
)

// checkAttributes gives the first fault of what shall be a JSON object: where it is
// (".a.0" within the attributes), the reason and what is allowed. An empty reason means none.
func checkAttributes(text []byte) (path, reason, allowed string) {
	if len(text) > MaxAttributes {
		return "", "TOO_LARGE", "at most " + strconv.Itoa(MaxAttributes) + " bytes"
	}
	d := jsontext.NewDecoder(bytes.NewReader(text)) // refuses invalid UTF-8, lone surrogates, duplicate keys
	if d.PeekKind() != '{' && len(bytes.TrimSpace(text)) > 0 {
		return "", "NOT_AN_OBJECT", "a JSON object"
	}
	for {
		t, err := d.ReadToken()
		switch {
		case err != nil:
			return malformed(err)
		case d.StackDepth() > MaxDepth:
			return "", "TOO_DEEP", "at most " + strconv.Itoa(MaxDepth) + " levels of objects and arrays"
		}
		if reason, allowed := checkToken(t); reason != "" {
			return dotted(d.StackPointer()), reason, allowed
		}
		if t.Kind() == '"' && d.StackPointer() == "/external_id" && !isKey(d) {
			if n := utf8.RuneCountInString(t.String()); n < 1 || n > MaxExternalID {
				return ".external_id", "OUT_OF_RANGE", "1 to " + strconv.Itoa(MaxExternalID) + " characters"
			}
		}
		if d.StackDepth() == 0 {
			if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
				return "", "MALFORMED_JSON", "one JSON object and nothing after it"
			}
			return "", "", ""
		}
	}
}

// plainNumbers rewrites an object that checkAttributes has passed with each number as Postgres gives it
// back: without exponent. So what is compared, limited and stored is the same text, and a few bytes such as
// 1e308 cannot grow behind a limit. The result is cut off soon after MaxAttributes.
func plainNumbers(text []byte) []byte {
	var b bytes.Buffer
	d, e := jsontext.NewDecoder(bytes.NewReader(text)), jsontext.NewEncoder(&b)
	for b.Len() <= MaxAttributes {
		t, err := d.ReadToken()
		switch {
		case err != nil: // the end, since the text is well formed
			return bytes.TrimSpace(b.Bytes())
		case t.Kind() == '0':
			err = e.WriteValue(jsontext.Value(plainNumber(t.String())))
		default:
			err = e.WriteToken(t)
		}
		if err != nil {
			return text // the checks that follow refuse what cannot be written
		}
		if d.StackDepth() == 0 {
			return bytes.TrimSpace(b.Bytes())
		}
	}
	return b.Bytes()
}

// plainNumber writes a JSON number as Postgres' numeric does: 1e2 is 100, 1.50e-1 is 0.150, -0 is 0.
func plainNumber(s string) string {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	shift, _ := strconv.Atoi(cmp.Or(exponent, "0")) // checkToken has seen it
	digits, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	digits, point := whole+fraction, len(whole)+shift
	if point < 1 {
		digits, point = strings.Repeat("0", 1-point)+digits, 1
	}
	if point > len(digits) {
		digits += strings.Repeat("0", point-len(digits))
	}
	whole, fraction = strings.TrimLeft(digits[:point], "0"), digits[point:]
	out := cmp.Or(whole, "0")
	if fraction != "" {
		out += "." + fraction
	}
	if negative && strings.Trim(digits, "0") != "" {
		out = "-" + out
	}
	return out
}

// isKey tells whether the token just read was an object's key.
func isKey(d *jsontext.Decoder) bool {
	kind, n := d.StackIndex(d.StackDepth())
	return kind == '{' && n%2 == 1
}

func checkToken(t jsontext.Token) (reason, allowed string) {
	switch t.Kind() {
	case '"':
		if strings.ContainsRune(t.String(), 0) {
			return "NUL_CHARACTER", "text without the NUL character (U+0000)"
		}
	case '0':
		s := t.String()
		_, exp, _ := strings.Cut(strings.ToLower(s), "e")
		e, err := strconv.Atoi(cmp.Or(exp, "0"))
		if err != nil || e > maxExponent || e < -maxExponent || len(s) > maxDigits {
			return "OUT_OF_RANGE", "numbers of at most 1000 digits and exponents from -308 to 308"
		}
	}
	return "", ""
}

func malformed(err error) (path, reason, allowed string) {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return "", "MALFORMED_JSON", "a JSON object"
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return dotted(syntax.JSONPointer), "DUPLICATE_KEY", "each key once"
	}
	return dotted(syntax.JSONPointer), "MALFORMED_JSON",
		"JSON (RFC 8259) in UTF-8 without lone surrogates; wrong at byte " + strconv.FormatInt(syntax.ByteOffset, 10)
}

// dotted writes a JSON pointer (RFC 6901) as fields are named: ".a.0.b".
func dotted(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		quoted := strconv.Quote(clip(token))
		b.WriteString("." + quoted[1:len(quoted)-1])
	}
	return clip(b.String())
}

// object reads a JSON object that checkAttributes has passed, its values as they are written.
func object(text []byte) map[string]jsontext.Value {
	members := map[string]jsontext.Value{}
	d := jsontext.NewDecoder(bytes.NewReader(text))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return members
	}
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err != nil {
			return members
		}
		name := key.String()
		value, err := d.ReadValue()
		if err != nil {
			return members
		}
		members[name] = value.Clone()
	}
	return members
}

// encode writes an object, its keys sorted.
func encode(members map[string]jsontext.Value) []byte {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = jsontext.AppendQuote(b, name) // fails only on invalid UTF-8, which has been refused
		b = append(append(b, ':'), members[name]...)
	}
	return append(b, '}')
}

// mergePatch applies a JSON Merge Patch (RFC 7396) to an object. Numbers stay as they are written.
func mergePatch(target, patch []byte) []byte {
	members := object(target)
	for name, value := range object(patch) {
		switch value.Kind() {
		case 'n':
			delete(members, name)
		case '{':
			members[name] = mergePatch(members[name], value)
		default:
			members[name] = value
		}
	}
	return encode(members)
}

// diffObjects gives the members that two objects do not share, as each has them; equal values may
// be written differently.
func diffObjects(before, after []byte) (only, became map[string]jsontext.Value) {
	old, next := object(before), object(after)
	for name, value := range old {
		if other, ok := next[name]; ok && equal(value, other) {
			delete(old, name)
			delete(next, name)
		}
	}
	return old, next
}

func equal(a, b jsontext.Value) bool {
	a, b = a.Clone(), b.Clone()
	canonical := []jsontext.Options{jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false), jsontext.ReorderRawObjects(true)}
	if a.Format(canonical...) != nil || b.Format(canonical...) != nil {
		return false
	}
	return bytes.Equal(a, b)
}
