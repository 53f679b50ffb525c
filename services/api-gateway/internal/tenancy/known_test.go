package tenancy_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/gatewaytest"
)

// This file is all that the tests are told. Each of them fails on what is new and not said here.

// secretMark is in texts of A's data that no test ever sends as B: where it shows, something leaks. Texts
// with baitMark are what B sends.
const (
	secretMark = "zq-secret"
	baitMark   = "zq-bait"
)

// notTenants are the tables that have no org_id, and why none of a customer's data is in them.
func notTenants() map[string]string {
	return map[string]string{
		"audit_heads":      "signed sizes and roots of all organisations' entries together",
		"audit_leaves":     "salted hashes of entries, for the relay alone",
		"consumer_cursors": "positions of the suite's own consumers",
		"event_times":      "times of blocks of ids, of all organisations together",
		"entry_times":      "times of blocks of ids, of all organisations together",
		"consumer_leases":  "replicas of the suite",
		"consumer_members": "replicas of the suite",
		"login_attempts":   "hashes of accounts and addresses, before any organisation is known; no role may read it",
		"positions":        "numbers of events, for the relay alone",
		"relay_batches":    "the relay's ledger, for it alone",
		"schema_api":       "goose's version",
		"schema_core":      "goose's version",
	}
}

// seesAll are the roles, and their tables, that work for all organisations at once.
func seesAll() []string { return []string{"sametick_relay events", "sametick_relay audit_entries"} }

// secretColumns are what a caller proves who they are by: B does not have A's, so no test sends them.
func secretColumns() map[string]string {
	return map[string]string{
		"credentials.email":         "what a user signs in with, before their organisation is known",
		"credentials.password_hash": "a secret's hash",
		"api_keys.hash":             "a secret's hash",
		"refresh_tokens.hash":       "a secret's hash",
		"user_tokens.hash":          "a secret's hash",
		"api_keys.previous_hash":    "a secret's hash",
		"idempotency_keys.key_hash": "a secret's hash",
	}
}

// operators are the functions that keep the tables themselves and no customer's rows.
func operators() map[string]string {
	return map[string]string{
		"ensure_partitions": "makes partitions",
		"drop_partitions":   "drops what retention has ended",
		"count_next_block":  "counts events of all organisations, each under its own",

		"count_next_entry_block": "counts entries of all organisations, each under its own",

		"forget_idempotency_keys": "ends what is a day old",
	}
}

// craftedArguments are arguments, by function and name, that a column's value alone would not make.
func craftedArguments(a int64) map[string][]string {
	return map[string][]string{
		"record_events events": {
			fmt.Sprintf(`[{"org_id":%d,"aggregate_type":"task","aggregate_id":1,"action":"stolen"}]`, a),
			fmt.Sprintf(`[{"org_id":"%d","aggregate_type":"task","aggregate_id":1,"action":"stolen"}]`, a),
		},
	}
}

// tellsByName are functions that may tell by design whether what they are asked for exists.
func tellsByName() map[string]string {
	return map[string]string{"record_events": "its answer is where B's own events are; that they are not A's the digest of rows tells"}
}

// unmarked are the text columns of A's rows that hold no free text of a customer's.
func unmarked() map[string]string {
	words := "words of this program"
	return map[string]string{
		"aggregates.type": words, "api_keys.prefix": "of a secret", "api_keys.scopes": words, "audit_entries.action": words, "audit_entries.aggregate_type": words,
		"audit_entries.outcome": words, "audit_entries.request_id": "has its own alphabet", "credentials.password_hash": "a hash", "credentials.scopes": words,
		"event_counts.aggregate_type": words, "event_counts.event_type": words, "event_actor_counts.aggregate_type": words, "event_actor_counts.event_type": words,
		"entry_counts.aggregate_type": words, "entry_counts.action": words, "entry_counts.outcome": words,
		"entry_actor_counts.aggregate_type": words, "entry_actor_counts.action": words, "entry_actor_counts.outcome": words,
		"events.aggregate_type": words, "events.event_type": words, "events.trace_context": "a traceparent", "records.type": words, "types.name": "has its own alphabet",
		"workflow_runs.status": words, "workflow_steps.status": words, "workflow_steps.on_failure": words, "workflow_steps.key": "has its own alphabet", "workflow_steps.needs": "keys",
		"roles.scopes": words, "review_hooks.event_types": words, "review_hooks.failure_policy": words, "review_hooks.enforcement": words, "user_tokens.purpose": words,
	}
}

// plainFields are the fields of requests that select nobody's data.
func plainFields() []string {
	return []string{"action", "outcome", "note", "current_password", "new_password", "overlap", "key", "needs", "on_failure", "description", "format", "name", "version", "limit", "page", "order", "from", "to", "scopes", "password", "event_type", "paths"}
}

// idFields are the ids beside what ends in _id.
func idFields() []string { return []string{"roles"} }

// keyFields are the texts that select data, beside what ends in _id.
func keyFields() []string {
	return []string{"type", "aggregate_type", "external_id", "email", "GetTypeRequest.name", "CreateTypeRequest.name", "UpdateTypeRequest.name", "ArchiveTypeRequest.name"}
}

// attributesOf are the types of records that methods without a field for it make.
func attributesOf() map[string]string {
	return map[string]string{"WorkflowService.StartWorkflow": "workflow"}
}

// credentialFields hold secrets, which are not for others to have.
func credentialFields() []string { return []string{"refresh_token", "secret", "token"} }

// uncontrolled are the key fields that no value of an organisation's own makes a difference to, and why.
func uncontrolled() map[string]string {
	return map[string]string{
		"TypeService.CreateType.name":       "an organisation's own types do not mind another's",
		"IdentityService.Login.email":       "signing in needs the password too",
		"DirectoryService.CreateUser.email": "see tells",
		"DirectoryService.InviteUser.email": "see tells",
		"DirectoryService.UpdateUser.email": "see tells",
	}
}

// away are the methods that only another service can answer, which is not there in these tests, and where the
// rest of them is tested.
func away() map[string]string {
	return map[string]string{
		"AuditService.GetHead":             "sizes and hashes of all organisations' entries together",
		"AuditService.GetConsistencyProof": "sizes and hashes of all organisations' entries together",
		"AuditService.GetInclusionProof":   "internal/app, TestAudit: another's entry is absent before the relay is asked",
	}
}

// elsewhere are the services that this process only passes on, and where their tenancy is tested.
func elsewhere() map[string]string {
	return map[string]string{"sametick.webhooks.v1.WebhookService": "services/webhook-worker/internal/grpcapi, tenancy_test.go",
		"sametick.prompts.v1.PromptService": "services/prompt-worker/internal/grpcapi, tenancy_test.go"}
}

// paired are the arguments whose value belongs to another's of the same request: A's alone is nobody's, even to
// A, so the control is their whole request.
func paired() map[string]string {
	reason := "a step is one of its workflow"
	return map[string]string{
		"WorkflowService.PassStep.workflow_id": reason, "WorkflowService.PassStep.step_id": reason, "WorkflowService.FailStep.workflow_id": reason,
		"WorkflowService.FailStep.step_id": reason, "WorkflowService.ApproveStep.workflow_id": reason, "WorkflowService.ApproveStep.step_id": reason,
	}
}

// tells are the arguments by which one organisation can learn that another has something, and why that is so.
func tells() map[string]string {
	reason := "an address signs in to one organisation, so it must be refused to a second"
	return map[string]string{
		"DirectoryService.CreateUser.email": reason, "DirectoryService.InviteUser.email": reason, "DirectoryService.UpdateUser.email": reason,
	}
}

// otherRoutes are the routes beside those of methods, and where they are tested.
func otherRoutes() map[string]string {
	return map[string]string{
		"/api/events/stream": "services/sse-gateway/internal/sse, tenancy_test.go",
		"/api/openapi.json":  "the same for everybody, without a token",
		"/api/docs":          "the same for everybody, without a token",
		"/api/portal":        "the same for everybody, without a token",
		"/api/portal/":       "the same for everybody, without a token",
	}
}

// plant makes one of everything for an organisation: with names that are sent as B, and with secret ones.
func plant(s *side) {
	for _, mark := range []string{baitMark, secretMark} {
		s.must("TypeService.CreateType", s.kind(s.text(mark)))
		for _, typ := range event.Types() {
			if typ == "user" || typ == "organization" || typ == "api_key" || typ == "role" || typ == "webhook_endpoint" {
				continue
			}
			s.own[typ] = s.id(s.must("RecordService.CreateRecord", request{"type": typ, "name": s.text(mark),
				"attributes": request{"external_id": s.text(baitMark), "note": s.text(secretMark)}}))
		}
		s.own["definition"] = s.id(s.must("WorkflowService.CreateDefinition", s.definition(s.text(mark))))
		s.own["run"] = s.id(s.must("WorkflowService.StartWorkflow", request{"definition_id": s.own["definition"], "name": s.text(mark)}))
		s.must("IdentityService.CreateApiKey", request{"name": s.text(mark), "scopes": []any{"records:read"}})
		s.own["role"] = s.id(s.must("DirectoryService.CreateRole", request{"name": s.text(mark), "scopes": []any{"records:read"}}))
		s.own["user"] = s.id(s.must("DirectoryService.CreateUser", request{"email": s.email(mark), "name": s.text(mark), "roles": []any{s.own["role"]}}))
		s.must("DirectoryService.InviteUser", request{"email": s.email(mark), "name": s.text(mark)})
		s.must("RecordService.UpdateRecord", request{"type": "task", "id": s.own["task"], "name": s.text(mark),
			"workflow_id": s.own["workflow"], "step_id": s.own["step"]})
	}
	s.must("IdentityService.Login", s.login())
	// A producer's own type, which no other organisation may learn of.
	_, err := s.w.g.Admin.Exec(s.w.t.Context(), `SELECT sametick.record_event($1, 'only_of_' || $1::bigint, 1, 'done')`, s.OrgID)
	require.NoError(s.w.t, err)
	// Counts are made of 50,000 events at a time.
	_, err = s.w.g.Admin.Exec(s.w.t.Context(), `INSERT INTO sametick.event_counts VALUES ($1, -1, 'task', 'task.counted', 1)`, s.OrgID)
	require.NoError(s.w.t, err)
	_, err = s.w.g.Admin.Exec(s.w.t.Context(), `INSERT INTO sametick.entry_counts VALUES ($1, -1, 'task', 'count', 'applied', 1)`, s.OrgID)
	require.NoError(s.w.t, err)
	_, err = s.w.g.Admin.Exec(s.w.t.Context(), `INSERT INTO sametick.entry_actor_counts VALUES ($1, $2, -1, 'task', 'count', 'applied', 1)`, s.OrgID, s.UserID)
	require.NoError(s.w.t, err)
	_, err = s.w.g.Admin.Exec(s.w.t.Context(), `INSERT INTO sametick.external_identities (org_id, issuer, subject, user_id) VALUES ($1, $2, $3, $4)`,
		s.OrgID, s.text(secretMark), s.text(secretMark), s.own["user"])
	require.NoError(s.w.t, err)
	_, err = s.w.g.Admin.Exec(s.w.t.Context(), `INSERT INTO sametick.idempotency_keys (org_id, caller, key_hash, request_hash) VALUES ($1, $2, '\x00', '\x00')`,
		s.OrgID, s.text(secretMark))
	require.NoError(s.w.t, err)
	// A hook that reviews what nobody here writes.
	_, err = s.w.g.Admin.Exec(s.w.t.Context(), `INSERT INTO sametick.review_hooks VALUES ($1::bigint, 1000000 + $1::bigint, $2, '{only_of_a.pre_create}', 'fail_open', 'warn', 100)`,
		s.OrgID, s.text(secretMark))
	require.NoError(s.w.t, err)
	_, err = s.w.g.Admin.Exec(s.w.t.Context(), `INSERT INTO sametick.event_actor_counts VALUES ($1, $2, -1, 'task', 'task.counted', 1)`, s.OrgID, s.UserID)
	require.NoError(s.w.t, err)
}

func (s *side) definition(name string) request {
	return request{"name": name, "steps": []any{request{"key": "first", "name": name, "approval": true}}}
}

// step gives the first step of a fresh workflow.
func (s *side) step() request {
	run := s.must("WorkflowService.StartWorkflow", request{"definition_id": s.own["definition"], "name": "x"})
	return request{"workflow_id": run["id"], "step_id": run["steps"].([]any)[0].(request)["id"]}
}

// kind is a type of records to be.
func (s *side) kind(description string) request {
	s.w.drawn++
	return request{"name": fmt.Sprintf("kind_%d_of_%d", s.w.drawn, s.OrgID), "description": description,
		"schema": request{"type": "object", "properties": request{"note": request{"type": "string", "description": description}}}}
}

func (s *side) email(mark string) string { return s.text(mark) + "@tenancy.example" }

// user makes a user who signs in, and gives the id and an access token.
func (s *side) user() (id, token any) {
	email := s.email("x")
	made := s.must("DirectoryService.CreateUser", request{"email": email, "password": gatewaytest.Password})
	return made["id"], s.must("IdentityService.Login", request{"email": email, "password": gatewaytest.Password})["access_token"]
}

func (s *side) login() request { return request{"email": s.Email, "password": gatewaytest.Password} }

// requests gives for a method a request that succeeds in the organisation's own data. What a mutation uses
// up it makes first; what only reads makes nothing. A method that is not here is called without arguments.
func requests() map[string]func(*side) request {
	task := func(s *side) request { return request{"type": "task", "id": s.own["task"]} }
	fresh := func(s *side) request {
		return request{"type": "task", "id": s.id(s.must("RecordService.CreateRecord", request{"type": "task", "name": "x"}))}
	}
	kind := func(s *side) request { return request{"name": s.must("TypeService.CreateType", s.kind("x"))["name"]} }
	member := func(s *side) request {
		return request{"id": s.id(s.must("DirectoryService.CreateUser", request{"email": s.email("x")}))}
	}
	role := func(s *side) request {
		return request{"id": s.id(s.must("DirectoryService.CreateRole", request{"name": "x", "scopes": []any{"records:read"}}))}
	}
	session := func(s *side) request {
		return request{"refresh_token": s.must("IdentityService.Login", s.login())["refresh_token"]}
	}
	return map[string]func(*side) request{
		"RecordService.CreateRecord":  func(*side) request { return request{"type": "task", "name": "x"} },
		"RecordService.GetRecord":     task,
		"RecordService.ListRecords":   func(*side) request { return request{"type": "task"} },
		"RecordService.UpdateRecord":  func(s *side) request { return with(fresh(s), request{"name": "y"}) },
		"RecordService.ArchiveRecord": fresh,
		"RecordService.RestoreRecord": func(s *side) request {
			r := fresh(s)
			s.must("RecordService.ArchiveRecord", maps.Clone(r))
			return r
		},
		"RecordService.ExportRecords":                   func(*side) request { return request{"type": "task"} },
		"RecordService.BatchRecords":                    func(*side) request { return batch("create", request{"name": "x"}) },
		"RecordService.BatchRecords operations.update":  func(s *side) request { return batch("update", request{"id": fresh(s)["id"], "name": "y"}) },
		"RecordService.BatchRecords operations.archive": func(s *side) request { return batch("archive", request{"id": fresh(s)["id"]}) },

		"TypeService.CreateType": func(s *side) request {
			// Of an organisation of its own, since B would have it from then on.
			return with(s.kind("x"), request{asKey: s.w.g.Found(s.w.t, "Other", s.text("x")+"@tenancy.example").APIKey})
		},
		"TypeService.GetType": func(s *side) request {
			return request{"name": s.must("TypeService.ListTypes", request{})["data"].([]any)[0].(request)["name"]}
		},
		"TypeService.UpdateType":  func(s *side) request { return with(kind(s), request{"description": "y"}) },
		"TypeService.ArchiveType": kind,

		"WorkflowService.StartWorkflow":  func(s *side) request { return request{"definition_id": s.own["definition"], "name": "x"} },
		"WorkflowService.GetWorkflow":    func(s *side) request { return request{"id": s.own["run"]} },
		"WorkflowService.CancelWorkflow": func(s *side) request { return request{"id": s.step()["workflow_id"]} },
		"WorkflowService.PassStep":       (*side).step,
		"WorkflowService.FailStep":       (*side).step,
		"WorkflowService.ApproveStep": func(s *side) request {
			r := s.step()
			s.must("WorkflowService.PassStep", maps.Clone(r))
			return r
		},
		"WorkflowService.CreateDefinition": func(s *side) request { return s.definition("x") },
		"WorkflowService.GetDefinition":    func(s *side) request { return request{"id": s.own["definition"]} },
		"WorkflowService.UpdateDefinition": func(s *side) request {
			return request{"id": s.id(s.must("WorkflowService.CreateDefinition", s.definition("x"))), "name": "y"}
		},
		"WorkflowService.ArchiveDefinition": func(s *side) request {
			return request{"id": s.id(s.must("WorkflowService.CreateDefinition", s.definition("x")))}
		},

		"AuditService.GetEntry": func(s *side) request {
			return request{"id": s.must("AuditService.ListEntries", request{})["data"].([]any)[0].(request)["id"]}
		},

		"EventService.ListEvents":       func(*side) request { return request{"aggregate_type": []any{"task"}} },
		"EventService.ListEntityEvents": func(s *side) request { return request{"aggregate_type": "task", "aggregate_id": s.own["task"]} },

		"IdentityService.Login":        func(s *side) request { return s.login() },
		"IdentityService.Refresh":      session,
		"IdentityService.Logout":       session,
		"IdentityService.CreateApiKey": func(*side) request { return request{"name": "x", "scopes": []any{"records:read"}} },
		"IdentityService.ArchiveApiKey": func(s *side) request {
			made := s.must("IdentityService.CreateApiKey", request{"name": "x", "scopes": []any{"records:read"}})
			return request{"id": made["api_key"].(request)["id"]}
		},
		"IdentityService.RotateApiKey": func(s *side) request {
			made := s.must("IdentityService.CreateApiKey", request{"name": "x", "scopes": []any{"records:read"}})
			return request{"id": made["api_key"].(request)["id"]}
		},
		"IdentityService.ChangePassword": func(s *side) request {
			_, token := s.user()
			return request{"current_password": gatewaytest.Password, "new_password": "another battery staple", asKey: token}
		},
		"IdentityService.ResetPassword": func(s *side) request {
			id, _ := s.user()
			return request{"token": s.must("DirectoryService.StartPasswordReset", request{"id": id})["token"], "password": "another battery staple"}
		},
		"IdentityService.AcceptInvitation": func(s *side) request {
			return request{"token": s.must("DirectoryService.InviteUser", request{"email": s.email("x")})["token"], "password": "another battery staple"}
		},
		"IdentityService.ListSessions": func(s *side) request {
			return request{asKey: s.must("IdentityService.Login", s.login())["access_token"]}
		},
		"IdentityService.EndSession": func(s *side) request {
			s.must("IdentityService.Login", s.login())
			session := s.must("IdentityService.Login", s.login())["access_token"]
			list := s.must("IdentityService.ListSessions", request{asKey: session})["data"].([]any)
			i := slices.IndexFunc(list, func(v any) bool { return v.(request)["current"] != true })
			return request{"id": list[i].(request)["id"], asKey: session}
		},
		"IdentityService.EndSessions": func(s *side) request {
			_, token := s.user()
			return request{asKey: token}
		},

		"DirectoryService.CreateUser":  func(s *side) request { return request{"email": s.email("x")} },
		"DirectoryService.InviteUser":  func(s *side) request { return request{"email": s.email("x")} },
		"DirectoryService.GetUser":     func(s *side) request { return request{"id": s.own["user"]} },
		"DirectoryService.UpdateUser":  func(s *side) request { return with(member(s), request{"name": "y"}) },
		"DirectoryService.ArchiveUser": member, "DirectoryService.StartPasswordReset": member,
		"DirectoryService.CreateRole":         func(*side) request { return request{"name": "x", "scopes": []any{"records:read"}} },
		"DirectoryService.GetRole":            func(s *side) request { return request{"id": s.own["role"]} },
		"DirectoryService.UpdateRole":         func(s *side) request { return with(role(s), request{"name": "y"}) },
		"DirectoryService.ArchiveRole":        role,
		"DirectoryService.UpdateOrganization": func(*side) request { return request{"name": "Bolt"} },
		"DirectoryService.ArchiveOrganization": func(s *side) request {
			return request{asKey: s.w.g.Found(s.w.t, "Gone", s.email("x")).APIKey}
		},

		"IdentityService.ExchangeApiKey": func(s *side) request { return request{"secret": s.APIKey} },
	}
}

func batch(operation string, r request) request {
	return request{"type": "task", "operations": []any{request{operation: r}}}
}

func with(r, more request) request {
	maps.Copy(r, more)
	return r
}
