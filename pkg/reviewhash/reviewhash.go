// Package reviewhash names a proposed write by what is in it. The service that reviews a write and the one that then
// makes it compute the same name from what each of them holds, so that what was reviewed is what is written.
package reviewhash

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Write is what a hash is of. The state before is not among it: BaseVersion is, and a write on another version fails.
type Write struct {
	OrgID         int64
	EventType     string
	AggregateType string
	// AggregateID and BaseVersion are 0 for what is new.
	AggregateID, BaseVersion int64
	RecordName               string
	WorkflowID, StepID       *int64
	// Changed are names of fields, in any order.
	Changed []string
	// After is the entity as JSON; empty, or null, for one that goes.
	After []byte
}

// Hash is the SHA-256, in hex, of the write in canonical form: RFC 8785 (JSON Canonicalization Scheme) but for its numbers, which
// stay exact where the RFC rounds them to doubles. White space, order of members and the way a number or character is
// written do not count; order of arrays does. Its error is that After is no JSON: invalid UTF-8 and a name twice among it.
func Hash(w Write) (string, error) {
	after := []byte("null")
	if len(bytes.TrimSpace(w.After)) > 0 {
		var err error
		if after, err = canonical(w.After); err != nil {
			return "", fmt.Errorf("reviewhash: %w", err)
		}
	}
	changed := slices.Compact(slices.Sorted(slices.Values(w.Changed)))
	parts := append([]string{
		"sametick review 1", decimal(w.OrgID), w.EventType, w.AggregateType, decimal(w.AggregateID), decimal(w.BaseVersion), w.RecordName,
		optional(w.WorkflowID), optional(w.StepID), string(after),
	}, changed...)
	var text []byte
	for _, p := range parts { // its length first, so that none passes for the beginning of the next
		text = fmt.Appendf(text, "%d %s\n", len(p), p)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func optional(id *int64) string {
	if id == nil {
		return "-"
	}
	return decimal(*id)
}

// canonical rewrites the numbers of a text one by one and leaves the rest to the library.
func canonical(text []byte) ([]byte, error) {
	var out bytes.Buffer
	d, e := jsontext.NewDecoder(bytes.NewReader(text)), jsontext.NewEncoder(&out)
	for values := 0; ; {
		t, err := d.ReadToken()
		if errors.Is(err, io.EOF) && values > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		if t.Kind() == '0' {
			err = e.WriteValue(jsontext.Value(number(t.String())))
		} else {
			err = e.WriteToken(t)
		}
		if err != nil {
			return nil, err
		}
		if d.StackDepth() == 0 {
			if values++; values > 1 {
				return nil, errors.New("more than one JSON value")
			}
		}
	}
	v := jsontext.Value(bytes.TrimSpace(out.Bytes()))
	err := v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false))
	return v, err
}

// number writes a JSON number in one way: a whole number of digits that neither begins nor ends with 0, and an exponent
// of ten where there is one. 1.50, 15e-1 and 150E-2 are 15e-1. No digit is lost, and an exponent of any size costs
// nothing.
func number(s string) string {
	s, negative := strings.CutPrefix(s, "-")
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0"
	}
	shift := new(big.Int)
	if exponent != "" {
		shift.SetString(strings.TrimPrefix(exponent, "+"), 10)
	}
	trimmed := strings.TrimRight(digits, "0")
	shift.Add(shift, big.NewInt(int64(len(digits)-len(trimmed)-len(fraction))))
	if negative {
		trimmed = "-" + trimmed
	}
	if shift.Sign() == 0 {
		return trimmed
	}
	return trimmed + "e" + shift.String()
}
