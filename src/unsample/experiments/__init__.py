"""The paper's questions, asked of a model: each module measures, draws and judges one of them."""
