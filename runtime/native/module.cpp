#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "class_map.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using LogitsArray = nb::ndarray<const float, nb::ndim<3>, nb::device::cpu>;
using LabelsArray = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::device::cpu>;
using SamplingTuple = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

scalenas::Sampling sampling(const SamplingTuple &values) {
    const auto &[step, offset, denominator] = values;
    if (step < 0 || denominator <= 0) throw std::invalid_argument("sampling takes a step >= 0 and a denominator > 0");
    return {step, offset, denominator};
}

void class_map(const LogitsArray &logits, const LabelsArray &out, const SamplingTuple &rows,
               const SamplingTuple &columns, const std::string &instructions) {
    if (logits.size() == 0 || out.size() == 0) throw std::invalid_argument("logits and out must not be empty");
    if (logits.shape(0) > 255) throw std::invalid_argument("at most 255 classes fit into uint8 labels");
    if ((logits.shape(2) > 1 && logits.stride(2) != 1) || (out.shape(1) > 1 && out.stride(1) != 1))
        throw std::invalid_argument("columns of logits and out must be adjacent in memory");
    const scalenas::Logits source{logits.data(),
                                  static_cast<std::int64_t>(logits.shape(0)),
                                  static_cast<std::int64_t>(logits.shape(1)),
                                  static_cast<std::int64_t>(logits.shape(2)),
                                  logits.stride(0),
                                  logits.stride(1)};
    const scalenas::Labels target{out.data(), static_cast<std::int64_t>(out.shape(0)),
                                  static_cast<std::int64_t>(out.shape(1)), out.stride(0)};
    const scalenas::Sampling row_sampling = sampling(rows), column_sampling = sampling(columns);
    nb::gil_scoped_release release;
    scalenas::class_map(source, target, row_sampling, column_sampling, instructions);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Native kernels of scalenas_runtime; each has its NumPy reference in scalenas_runtime.kernels.";
    m.def("class_map", &class_map, "logits"_a.noconvert(), "out"_a.noconvert(), "rows"_a, "columns"_a,
          "instructions"_a, "Fused bilinear upsampling and argmax; see scalenas_runtime.kernels.class_map.");
    m.def("instruction_sets", &scalenas::instruction_sets,
          "Names of the instruction sets that this processor runs, best last.");
}
