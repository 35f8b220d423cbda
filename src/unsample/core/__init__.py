"""One move, and the walk: tensors, noise levels and functions, without files of models, pixels or diffusers.

To be read in this order: `schedule` (noise levels), `grid` (the levels of a walk and its moves), `prediction` (a network's
output as eps), `transfer` (the one equation), `denoiser` (the function that gives eps), `stepper` (what a method is), `ddim`
(the simplest method), `walk` (the one loop), `starts` (where a walk up begins), `ascend` (all of it together). The rest serves
them: `model`, `callable`, `spacing`, `betas`, `trajectory`, `files` (what is kept),
`corrections` (what a walk records for another), `rng`, `batching` and `specs`.
"""
