package grpcapi

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	workflowv1 "github.com/sametick/sametick/proto/gen/go/sametick/workflow/v1"
	"github.com/sametick/sametick/services/api-gateway/internal/workflow"
)

// Workflows serves WorkflowService.
type Workflows struct {
	workflowv1.UnimplementedWorkflowServiceServer
	service *workflow.Service
}

// NewWorkflows makes the server.
func NewWorkflows(s *workflow.Service) *Workflows { return &Workflows{service: s} }

// StartWorkflow implements WorkflowService.
func (s *Workflows) StartWorkflow(ctx context.Context, req *workflowv1.StartWorkflowRequest) (*workflowv1.Workflow, error) {
	return toFlow(s.service.Start(ctx, callerOf(ctx).call, req.GetDefinitionId(), req.GetName(), []byte(req.GetAttributes().GetText())))
}

// GetWorkflow implements WorkflowService.
func (s *Workflows) GetWorkflow(ctx context.Context, req *workflowv1.GetWorkflowRequest) (*workflowv1.Workflow, error) {
	return toFlow(s.service.Get(ctx, callerOf(ctx).call.OrgID, req.GetId()))
}

// CancelWorkflow implements WorkflowService.
func (s *Workflows) CancelWorkflow(ctx context.Context, req *workflowv1.CancelWorkflowRequest) (*workflowv1.Workflow, error) {
	return toFlow(s.service.Cancel(ctx, callerOf(ctx).call, req.GetId(), req.GetNote()))
}

// PassStep implements WorkflowService.
func (s *Workflows) PassStep(ctx context.Context, req *workflowv1.PassStepRequest) (*workflowv1.Workflow, error) {
	return s.move(ctx, req, workflow.Pass)
}

// FailStep implements WorkflowService.
func (s *Workflows) FailStep(ctx context.Context, req *workflowv1.FailStepRequest) (*workflowv1.Workflow, error) {
	return s.move(ctx, req, workflow.Fail)
}

// ApproveStep implements WorkflowService.
func (s *Workflows) ApproveStep(ctx context.Context, req *workflowv1.ApproveStepRequest) (*workflowv1.Workflow, error) {
	return s.move(ctx, req, workflow.Approve)
}

// stepRequest is any move of a step.
type stepRequest interface {
	GetWorkflowId() int64
	GetStepId() int64
	GetNote() string
}

func (s *Workflows) move(ctx context.Context, req stepRequest, move string) (*workflowv1.Workflow, error) {
	return toFlow(s.service.Move(ctx, callerOf(ctx).call, req.GetWorkflowId(), req.GetStepId(), move, req.GetNote()))
}

// CreateDefinition implements WorkflowService.
func (s *Workflows) CreateDefinition(ctx context.Context, req *workflowv1.CreateDefinitionRequest) (*workflowv1.Definition, error) {
	return definition(s.service.CreateDefinition(ctx, callerOf(ctx).call, req.GetName(), specs(req.GetSteps())))
}

// GetDefinition implements WorkflowService.
func (s *Workflows) GetDefinition(ctx context.Context, req *workflowv1.GetDefinitionRequest) (*workflowv1.Definition, error) {
	return definition(s.service.Definition(ctx, callerOf(ctx).call.OrgID, req.GetId()))
}

// ListDefinitions implements WorkflowService.
func (s *Workflows) ListDefinitions(ctx context.Context, req *workflowv1.ListDefinitionsRequest) (*workflowv1.ListDefinitionsResponse, error) {
	list, total, err := s.service.Definitions(ctx, callerOf(ctx).call.OrgID, req.Limit, req.Page)
	if err != nil {
		return nil, err
	}
	res := &workflowv1.ListDefinitionsResponse{Total: total}
	for i := range list {
		res.Data = append(res.Data, toDefinition(&list[i]))
	}
	return res, nil
}

// UpdateDefinition implements WorkflowService.
func (s *Workflows) UpdateDefinition(ctx context.Context, req *workflowv1.UpdateDefinitionRequest) (*workflowv1.Definition, error) {
	return definition(s.service.UpdateDefinition(ctx, callerOf(ctx).call, req.GetId(), req.Name, specs(req.GetSteps()), req.Version))
}

// ArchiveDefinition implements WorkflowService.
func (s *Workflows) ArchiveDefinition(ctx context.Context, req *workflowv1.ArchiveDefinitionRequest) (*workflowv1.Definition, error) {
	return definition(s.service.ArchiveDefinition(ctx, callerOf(ctx).call, req.GetId(), req.Version))
}

func specs(list []*workflowv1.StepDefinition) (out []workflow.Spec) {
	for _, s := range list {
		out = append(out, workflow.Spec{Key: s.GetKey(), Name: s.GetName(), Needs: s.GetNeeds(), Approval: s.GetApproval(), OnFailure: s.GetOnFailure()})
	}
	return out
}

func definition(d workflow.Definition, err error) (*workflowv1.Definition, error) {
	if err != nil {
		return nil, err
	}
	return toDefinition(&d), nil
}

func toDefinition(d *workflow.Definition) *workflowv1.Definition {
	m := &workflowv1.Definition{Id: d.ID, Name: d.Name, Version: d.Version, CreatedAt: timestamppb.New(d.CreatedAt),
		UpdatedAt: timestamppb.New(d.UpdatedAt), ArchivedAt: timestamp(d.ArchivedAt)}
	for _, s := range d.Steps {
		m.Steps = append(m.Steps, &workflowv1.StepDefinition{Key: s.Key, Name: s.Name, Needs: s.Needs, Approval: s.Approval, OnFailure: s.OnFailure})
	}
	return m
}

func toFlow(f workflow.Flow, err error) (*workflowv1.Workflow, error) {
	if err != nil {
		return nil, err
	}
	m := &workflowv1.Workflow{Id: f.ID, Name: f.Name, Status: f.Status, DefinitionId: f.DefinitionID, DefinitionVersion: f.DefinitionVersion, Moves: f.Moves()}
	for i := range f.Steps {
		s := &f.Steps[i]
		m.Steps = append(m.Steps, &workflowv1.Step{Id: s.ID, Key: s.Key, Name: s.Name, Status: s.Status, Needs: s.Needs,
			Approval: s.Approval, OnFailure: s.OnFailure, Moves: s.Moves(f.Status)})
	}
	return m, nil
}
