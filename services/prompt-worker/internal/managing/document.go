package managing

import (
	"encoding/json"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
)

// document is an event as templates see it: with before, after and changed where it is a pre_* event.
func document(e *event.Event) ([]byte, error) {
	text := e.AppendJSON(nil)
	if !review.IsPre(e) {
		return text, nil
	}
	w, _, err := review.PastWrite(e)
	if err != nil {
		return nil, errs.Wrap(err, errs.FailedPrecondition, "EVENT_NOT_READABLE", "the event is of no known form")
	}
	doc := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	doc["before"], doc["after"] = w.Before, w.After
	if len(w.Before) == 0 {
		doc["before"] = json.RawMessage("null")
	}
	if doc["changed"], err = json.Marshal(append([]string{}, w.Changed...)); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}
