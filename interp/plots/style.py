"""How every figure looks: fonts, colours, margins."""

import plotly.graph_objects as go

FONT = dict(family="Inter, Helvetica, Arial, sans-serif", size=13, color="#222")
COLOURS = ("#2a5d9f", "#c0562f", "#5b8c5a", "#8a5a9e", "#b08d2e", "#3f9a98", "#6b6b6b")


def dress(figure: go.Figure, title: str, height: int = 380) -> go.Figure:
    """The figure with its title, and the house's look."""
    figure.update_layout(
        title=dict(text=title, x=0.02, font_size=16, y=1, yanchor="top", pad_t=16),
        template="plotly_white", font=FONT, height=height,
        margin=dict(l=70, r=30, t=76, b=90),
        legend=dict(orientation="h", y=1.02, yanchor="bottom", x=1, xanchor="right"),
    )  # fmt: skip
    return figure
