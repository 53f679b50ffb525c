package prompting

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// Amount is what runs take of a budget.
type Amount struct {
	Runs, Tokens int64
	// Cost is in millionths of the price table's currency.
	Cost int64
}

// Plus adds.
func (a Amount) Plus(b Amount) Amount {
	return Amount{a.Runs + b.Runs, a.Tokens + b.Tokens, a.Cost + b.Cost}
}

func (a Amount) minus(b Amount) Amount {
	return Amount{a.Runs - b.Runs, a.Tokens - b.Tokens, a.Cost - b.Cost}
}

// Limits bound an Amount; nil bounds nothing.
type Limits struct {
	Runs   *int64 `json:"runs"`
	Tokens *int64 `json:"tokens"`
	Cost   *int64 `json:"cost"`
}

// Allow tells whether an amount is within them.
func (l Limits) Allow(a Amount) bool {
	within := func(limit *int64, n int64) bool { return limit == nil || n <= *limit }
	return within(l.Runs, a.Runs) && within(l.Tokens, a.Tokens) && within(l.Cost, a.Cost)
}

// Errors of budgets.
var (
	// ErrBudget is that the worst case of a run does not fit in what is left of the day.
	ErrBudget = errors.New("the budget of the day does not cover the run")
	// ErrSettled is that a run was settled, or given back, and may not be reserved again.
	ErrSettled = errors.New("the run has been settled")
	// ErrNotReserved is a settlement of what was never reserved: a fault of the caller.
	ErrNotReserved = errors.New("the run was not reserved")
)

// Attempt names one call of a model. A run that is tried again is another attempt: the first may have been paid for.
type Attempt struct {
	Run int64
	No  int
}

type reservation struct {
	worst   Amount
	expires time.Time
}

// Ledger is the budget of one hook or organisation in one UTC day: the rules that its tables keep. An attempt is
// reserved at its worst case before the call, settled with what it took after it, each once however often it is told.
// What is reserved and never settled, because its worker died, expires, and then counts at its worst case, because
// nobody knows whether the call was made. The zero value is an empty day. Not safe for concurrent use.
type Ledger struct {
	spent    Amount
	reserved map[Attempt]reservation
	// settled has what each attempt counted with, expired ones too until the truth is told.
	settled map[Attempt]settlement
}

type settlement struct {
	amount Amount
	// guessed: expired, not told.
	guessed bool
}

// Spent is what is settled; Held what is reserved.
func (l *Ledger) Spent() Amount { return l.spent }

// Held is what open reservations may still take.
func (l *Ledger) Held() (sum Amount) {
	for _, r := range l.reserved {
		sum = sum.Plus(r.worst)
	}
	return sum
}

// Reserve holds the worst case of an attempt until it expires. To reserve again what is held changes nothing. Errors:
// ErrBudget, ErrSettled.
func (l *Ledger) Reserve(a Attempt, worst Amount, limits Limits, expires time.Time) error {
	if _, done := l.settled[a]; done {
		return ErrSettled
	}
	if _, held := l.reserved[a]; held {
		return nil
	}
	if worst.Runs < 0 || worst.Tokens < 0 || worst.Cost < 0 || !limits.Allow(l.spent.Plus(l.Held()).Plus(worst)) {
		return ErrBudget
	}
	if l.reserved == nil {
		l.reserved = map[Attempt]reservation{}
	}
	l.reserved[a] = reservation{worst, expires}
	return nil
}

// Settle counts what an attempt took; the zero Amount gives it back, for a call that was not made. What is told first
// stays, but the guess of an expiry, which the truth replaces. It may be more than the worst case: what was spent was.
func (l *Ledger) Settle(a Attempt, took Amount) error {
	known, done := l.settled[a]
	switch _, held := l.reserved[a]; {
	case done && !known.guessed:
		return nil
	case !done && !held:
		return ErrNotReserved
	}
	l.spent = l.spent.minus(known.amount)
	l.count(a, settlement{took, false})
	return nil
}

// Expire settles the reservations whose time is over at their worst case, and gives their attempts.
func (l *Ledger) Expire(now time.Time) []Attempt {
	var out []Attempt
	for a, r := range maps.Clone(l.reserved) {
		if !now.Before(r.expires) {
			l.count(a, settlement{r.worst, true})
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Attempt) int {
		if a.Run != b.Run {
			return int(min(max(a.Run-b.Run, -1), 1))
		}
		return a.No - b.No
	})
	return out
}

func (l *Ledger) count(a Attempt, s settlement) {
	if l.settled == nil {
		l.settled = map[Attempt]settlement{}
	}
	l.settled[a] = s
	l.spent = l.spent.Plus(s.amount)
	delete(l.reserved, a)
}
