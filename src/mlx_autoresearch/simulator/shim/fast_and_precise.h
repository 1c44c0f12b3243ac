// Metal's math by the names fast:: and precise::, in CUDA, and in the simulator where a kernel names one of them.
// precise:: are the functions of math_functions.h; so are fast::, but for those that the including file defines.
#define MSL_USING(name, value) using metal::name;
namespace precise {
#define MSL_FLOAT_1 MSL_USING
#define MSL_FLOAT_2 MSL_USING
#define MSL_FLOAT_3 MSL_USING
#include "functions.def"
using metal::abs, metal::clamp, metal::max, metal::min;
}  // namespace precise
#ifndef MSL_CHECKED
namespace fast {
#define MSL_FLOAT_1 MSL_USING
#define MSL_FLOAT_2 MSL_USING
#define MSL_FLOAT_3 MSL_USING
#ifdef MSL_OWN_FAST_FUNCTIONS
#define MSL_FLOAT_1_FAST(name, value)
#define MSL_FLOAT_2_FAST(name, value)
#endif
#include "functions.def"
using metal::abs, metal::clamp, metal::max, metal::min;
}  // namespace fast
#endif
#undef MSL_USING
