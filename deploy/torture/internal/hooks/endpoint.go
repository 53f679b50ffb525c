// Package hooks is the far end of webhooks: endpoints of several organisations, the receivers behind them, which fail
// and hang when they are told to, and a record of every request that reached one. It knows the wire (Standard Webhooks,
// by a verifier that others wrote) and nothing of the worker.
package hooks

import (
	"fmt"
	"slices"
	"strings"
)

// Endpoint is one endpoint of the run, as it was asked for.
type Endpoint struct {
	ID, OrgID int64
	// Secret is whsec_….
	Secret  string
	URL     string
	Ordered bool
	// Types and IDs select the aggregates; empty means all.
	Types []string
	IDs   []int64
}

// Name tells it apart in a diagnostic.
func (e *Endpoint) Name() string {
	if e.Ordered {
		return fmt.Sprintf("endpoint %d (org %d, ordered)", e.ID, e.OrgID)
	}
	return fmt.Sprintf("endpoint %d (org %d)", e.ID, e.OrgID)
}

// Selects tells whether an event of its organisation is for the endpoint: no pre_ event is, unless asked for.
func (e *Endpoint) Selects(eventType, aggregateType string, aggregateID int64) bool {
	_, action, _ := strings.Cut(eventType, ".")
	return !strings.HasPrefix(action, "pre_") &&
		(len(e.Types) == 0 || slices.Contains(e.Types, aggregateType)) &&
		(len(e.IDs) == 0 || slices.Contains(e.IDs, aggregateID))
}

// Plan gives each organisation three endpoints: one of a steady receiver; one of a receiver that has faults; an ordered
// one with few events, since they come one by one, of either, in turn. types are three kinds of aggregates, ids 1 to hot
// those that every writer wants.
func Plan(orgs []int64, types []string, hot int64) []*Endpoint {
	var list []*Endpoint
	few := make([]int64, hot)
	for i := range few {
		few[i] = int64(i) + 1
	}
	for n, org := range orgs {
		list = append(list,
			&Endpoint{OrgID: org, URL: steadyPath, Types: types[1:2]},
			&Endpoint{OrgID: org, URL: []string{failingPath, hangingPath}[n%2], Types: types[0:1]},
			&Endpoint{OrgID: org, URL: []string{steadyPath, failingPath, hangingPath}[n%3], Types: types[2:3], IDs: few, Ordered: true})
	}
	return list
}
