// Carries the precompiled header of the tests that use libtorch.
#include <torch/torch.h>
