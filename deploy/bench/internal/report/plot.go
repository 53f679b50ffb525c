package report

import (
	"fmt"
	"image/color"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// One panel a leg, one under the other.
const (
	panelWidth  = 22 * vg.Centimeter
	panelHeight = 9 * vg.Centimeter
)

// plot draws one panel of bars a leg: the median as the bar, every round as a dot on it.
func (r *Report) plot(path string) error {
	var legs []string
	for _, s := range r.Series {
		if !slices.Contains(legs, s.Leg) {
			legs = append(legs, s.Leg)
		}
	}
	if len(legs) == 0 {
		return nil
	}
	canvas := vgsvg.New(panelWidth, panelHeight*vg.Length(len(legs)))
	white := draw.New(canvas)
	white.SetColor(color.White)
	white.Fill(white.Rectangle.Path())
	for i, leg := range legs {
		p, err := r.panel(leg)
		if err != nil {
			return err
		}
		if i == 0 {
			p.Title.Text = r.Title + "\n" + r.subtitle() + "\n\n" + leg
		}
		top := panelHeight * vg.Length(len(legs)-i)
		p.Draw(draw.Canvas{Canvas: canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: vg.Centimeter / 2, Y: top - panelHeight + vg.Centimeter/2},
			Max: vg.Point{X: panelWidth - vg.Centimeter/2, Y: top - vg.Centimeter/2},
		}})
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	if _, err := canvas.WriteTo(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("write the plot: %w", err)
	}
	return f.Close()
}

func (r *Report) panel(leg string) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = leg
	p.Y.Min = 0
	var (
		medians plotter.Values
		names   []string
		rounds  plotter.XYs
	)
	for _, s := range r.grouped() {
		if s.Leg != leg {
			continue
		}
		p.Y.Label.Text = s.Unit
		for _, v := range s.Rounds {
			rounds = append(rounds, plotter.XY{X: float64(len(medians)), Y: v})
		}
		medians = append(medians, s.Median())
		names = append(names, s.Name)
	}
	bars, err := plotter.NewBarChart(medians, 1.2*vg.Centimeter)
	if err != nil {
		return nil, fmt.Errorf("plot %s: %w", leg, err)
	}
	bars.Color = color.RGBA{R: 0x4c, G: 0x8b, B: 0xd0, A: 0xff}
	bars.LineStyle.Width = 0
	dots, err := plotter.NewScatter(rounds)
	if err != nil {
		return nil, fmt.Errorf("plot %s: %w", leg, err)
	}
	dots.Radius = vg.Points(2)
	dots.Color = color.RGBA{R: 0x1c, G: 0x2b, B: 0x3a, A: 0xff}
	dots.Shape = draw.CircleGlyph{}
	p.Add(plotter.NewGrid(), bars, dots)
	p.Y.Max *= 1.05 // the highest dot whole
	p.NominalX(names...)
	return p, nil
}
