"""The judge of kernels that find scales themselves, of groups of numbers and of a whole tensor.

`rule` says how a scale is due to be found and what is due under it, `groups` which numbers share one,
`inputs` makes tensors that decide scales, `laws` says what is wrong with an answer, `trial` asks a target,
`deviations` knows the usual ways to do a step otherwise.  `of_tensor` judges what finds the one scale beside
a tensor of blocks.
"""
