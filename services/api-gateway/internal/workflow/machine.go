// Package workflow has the rules of workflows that a definition governs: what a definition may be and how a
// workflow moves. It decides and does not act; storing lives in store.
//
// # The machine
//
//	step               pass                   fail       approve     when its needs are done
//	pending            –                      –          –           active
//	active             passed, or             failed     –
//	                   awaiting_approval
//	awaiting_approval  –                      failed     approved
//
// passed, approved, failed and cancelled are final. A step is done when it is passed or approved, or when it
// failed and its on_failure is "continue". The workflow is running until all its steps are done (completed), a step
// fails that stops it (failed), or it is cancelled; the steps that are not final by then are cancelled.
//
// A move changes records, which fires their pre_update and post_update; what it means has an event of its own:
// step.passed, step.failed, step.approved, workflow.started, workflow.completed, workflow.failed,
// workflow.cancelled.
package workflow

import (
	"slices"
	"strings"

	"github.com/sametick/sametick/pkg/errs"
)

// The states.
const (
	Running   = "running"
	Completed = "completed"
	Failed    = "failed"
	Cancelled = "cancelled"

	Pending  = "pending"
	Active   = "active"
	Awaiting = "awaiting_approval"
	Passed   = "passed"
	Approved = "approved"
)

// The moves.
const (
	Pass    = "pass"
	Fail    = "fail"
	Approve = "approve"
	Cancel  = "cancel"
)

// What a failed step does to its workflow.
const (
	Stop     = "stop"
	Continue = "continue"
)

// Spec is a step as a definition has it.
type Spec struct {
	Key       string   `json:"key"`
	Name      string   `json:"name"`
	Needs     []string `json:"needs"`
	Approval  bool     `json:"approval"`
	OnFailure string   `json:"on_failure"`
}

// Step is one of a workflow.
type Step struct {
	Spec
	ID     int64
	Status string
}

// Flow is a workflow as it is.
type Flow struct {
	ID                int64
	Name, Status      string
	DefinitionID      int64
	DefinitionVersion int64
	Steps             []Step
}

// Started gives the steps of a new workflow: those without needs are active.
func Started(specs []Spec) []Step {
	steps := make([]Step, len(specs))
	for i, s := range specs {
		steps[i] = Step{Spec: s, Status: Pending}
	}
	activate(steps)
	return steps
}

// Moves gives what may be done with a step of a running workflow.
func (s *Step) Moves(flow string) []string {
	switch {
	case flow != Running:
		return nil
	case s.Status == Active:
		return []string{Pass, Fail}
	case s.Status == Awaiting:
		return []string{Approve, Fail}
	default:
		return nil
	}
}

// Moves gives what may be done with the workflow.
func (f *Flow) Moves() []string {
	if f.Status == Running {
		return []string{Cancel}
	}
	return nil
}

// done tells whether a step lets those that need it begin.
func (s *Step) done() bool {
	return s.Status == Passed || s.Status == Approved || s.Status == Failed && s.OnFailure == Continue
}

func (s *Step) final() bool {
	return slices.Contains([]string{Passed, Approved, Failed, Cancelled}, s.Status)
}

// Move gives the workflow after a move of a step, and the events that name it: of the step, and of the workflow
// when that has ended (else empty). The error has reason STEP_NOT_FOUND or ILLEGAL_MOVE.
func (f Flow) Move(stepID int64, move string) (next Flow, stepEvent, flowEvent string, err error) {
	i := slices.IndexFunc(f.Steps, func(s Step) bool { return s.ID == stepID })
	if i < 0 {
		return f, "", "", errs.New(errs.NotFound, "STEP_NOT_FOUND", "the workflow has no such step")
	}
	if allowed := f.Steps[i].Moves(f.Status); !slices.Contains(allowed, move) {
		return f, "", "", illegal("the step", f.Steps[i].Status, f.Status, allowed)
	}
	f.Steps = slices.Clone(f.Steps)
	s := &f.Steps[i]
	switch {
	case move == Pass && s.Approval:
		s.Status, stepEvent = Awaiting, Passed
	case move == Pass:
		s.Status, stepEvent = Passed, Passed
	case move == Approve:
		s.Status, stepEvent = Approved, Approved
	default:
		s.Status, stepEvent = Failed, Failed
	}
	activate(f.Steps)
	switch {
	case s.Status == Failed && s.OnFailure != Continue:
		f.end(Failed)
		flowEvent = Failed
	case !slices.ContainsFunc(f.Steps, func(s Step) bool { return !s.done() }):
		f.Status, flowEvent = Completed, Completed
	}
	return f, stepEvent, flowEvent, nil
}

// Cancel gives the workflow cancelled.
func (f Flow) Cancel() (Flow, error) {
	if f.Status != Running {
		return f, illegal("the workflow", f.Status, f.Status, nil)
	}
	f.Steps = slices.Clone(f.Steps)
	f.end(Cancelled)
	return f, nil
}

func (f *Flow) end(status string) {
	f.Status = status
	for i := range f.Steps {
		if s := &f.Steps[i]; !s.final() {
			s.Status = Cancelled
		}
	}
}

// activate lets the steps begin whose needs are done.
func activate(steps []Step) {
	done := map[string]bool{}
	for i := range steps {
		done[steps[i].Key] = steps[i].done()
	}
	for i := range steps {
		s := &steps[i]
		if s.Status == Pending && !slices.ContainsFunc(s.Needs, func(key string) bool { return !done[key] }) {
			s.Status = Active
		}
	}
}

func illegal(what, status, flow string, allowed []string) error {
	list := "none"
	if len(allowed) > 0 {
		list = strings.Join(allowed, ", ")
	}
	return errs.New(errs.FailedPrecondition, "ILLEGAL_MOVE", what+" is "+status+", its workflow "+flow+"; allowed now: "+list).
		WithMeta("status", status).WithMeta("workflow_status", flow).WithMeta("allowed", strings.Join(allowed, ","))
}
