package prompting

import (
	"errors"
	"fmt"
	"math/big"
	"path"
	"strings"
)

// Price is what a million tokens cost, in millionths of the installation's currency.
type Price struct {
	// Pattern is of a model's name, as path.Match takes it: claude-*.
	Pattern               string
	Input, Cached, Output int64
}

// Prices is the table of an installation; the first pattern that matches a model holds.
type Prices []Price

// ErrPrices is why a table cannot be read.
var ErrPrices = errors.New("prices: want MODEL=INPUT/CACHED/OUTPUT, per million tokens")

// maxPrice of a million tokens, in millionths: a million of the currency.
const maxPrice = 1e12

// ParsePrices reads a table from configuration: "MODEL=INPUT/CACHED/OUTPUT, …", per million tokens, in the currency and
// parts of it, such as "gpt-*=2.5/0.25/10, local-*=0/0/0". Errors are ErrPrices.
func ParsePrices(table string) (Prices, error) {
	var out Prices
	for _, entry := range strings.FieldsFunc(table, func(r rune) bool { return r == ',' || r == '\n' }) {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		pattern, amounts, _ := strings.Cut(entry, "=")
		parts := strings.Split(amounts, "/")
		p := Price{Pattern: strings.TrimSpace(pattern)}
		if _, err := path.Match(p.Pattern, ""); err != nil || p.Pattern == "" || len(parts) != 3 {
			return nil, fmt.Errorf("%w: %q", ErrPrices, entry)
		}
		for i, into := range []*int64{&p.Input, &p.Cached, &p.Output} {
			amount, ok := new(big.Rat).SetString(strings.TrimSpace(parts[i]))
			if !ok || strings.ContainsAny(parts[i], "eE/_") {
				return nil, fmt.Errorf("%w: %q", ErrPrices, entry)
			}
			amount.Mul(amount, big.NewRat(1e6, 1))
			if !amount.IsInt() || amount.Sign() < 0 || amount.Cmp(big.NewRat(maxPrice, 1)) > 0 {
				return nil, fmt.Errorf("%w: %q: 0 to a million, six places", ErrPrices, entry)
			}
			*into = amount.Num().Int64()
		}
		if p.Cached > p.Input {
			return nil, fmt.Errorf("%w: %q: what a cache serves costs at most as much as input", ErrPrices, entry)
		}
		out = append(out, p)
	}
	return out, nil
}

// Cost gives what tokens cost at a model, in millionths, rounded up. It is false for a model without a price: a budget
// of cost cannot bound it.
func (p Prices) Cost(model string, u Usage) (int64, bool) {
	for _, price := range p {
		if !price.matches(model) {
			continue
		}
		sum := new(big.Int)
		for _, part := range [][2]int64{{u.Input, price.Input}, {u.Cached, price.Cached}, {u.Output, price.Output}} {
			sum.Add(sum, new(big.Int).Mul(big.NewInt(part[0]), big.NewInt(part[1])))
		}
		sum.Div(sum.Add(sum, big.NewInt(1e6-1)), big.NewInt(1e6))
		if !sum.IsInt64() {
			return maxPrice * 1e6, true
		}
		return sum.Int64(), true
	}
	return 0, false
}

// matches: a slash is part of a model's name, at which a pattern does not stop. The pattern has been checked.
func (p Price) matches(model string) bool {
	flat := strings.NewReplacer("/", "_")
	ok, _ := path.Match(flat.Replace(p.Pattern), flat.Replace(model))
	return ok
}

// What a request has besides its bytes: a message's frame, and the words that a provider adds for a schema or tools
// (Anthropic's documentation names up to 804 tokens for tools).
const (
	tokensPerTurn   = 16
	tokensPerTool   = 32
	tokensOfTooling = 1024
)

// InputBound is at least the tokens that a request can count as input. A token of the tokenizers in use has at least
// one byte, so bytes are the bound that holds for any text and model.
func (r Request) InputBound() int64 {
	n := int64(len(r.System)) + tokensPerTurn
	for _, t := range r.Turns {
		n += int64(len(t.Text)+len(t.Native)) + tokensPerTurn
		for _, c := range t.Calls {
			n += int64(len(c.Name)+len(c.Arguments)+len(c.ID)) + tokensPerTurn
		}
	}
	for _, t := range r.Tools {
		n += int64(len(t.Name)+len(t.Description)+len(t.Schema)) + tokensPerTool
	}
	if r.Schema != nil || len(r.Tools) > 0 {
		// A schema made strict is longer than it was.
		n += 2*int64(len(r.Schema)) + tokensOfTooling
	}
	return n
}

// WorstCase is the most that one call of a request can use, to be reserved before it. All input counts as uncached,
// which is the dearer.
func (r Request) WorstCase() Usage {
	out := int64(r.MaxTokens)
	if out <= 0 {
		out = DefaultMaxTokens
	}
	return Usage{Input: r.InputBound(), Output: out}
}
