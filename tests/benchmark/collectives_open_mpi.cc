// collectives_open_mpi KIND SIZE BYTES:WARMUP:TIMES…, under mpirun: prints the microseconds of one
// operation of each size, in place, float32. For collectives_bench.cc.
#define OMPI_SKIP_MPICXX 1  // the C interface alone
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace {

using Operation = void (*)(std::vector<float>& data, int size);

void AllReduce(std::vector<float>& data, int) {
  MPI_Allreduce(MPI_IN_PLACE, data.data(), static_cast<int>(data.size()), MPI_FLOAT, MPI_SUM,
                MPI_COMM_WORLD);
}
void AllGather(std::vector<float>& data, int size) {
  MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data.data(),
                static_cast<int>(data.size()) / size, MPI_FLOAT, MPI_COMM_WORLD);
}
void ReduceScatter(std::vector<float>& data, int size) {
  const std::vector<int> counts(static_cast<size_t>(size), static_cast<int>(data.size()) / size);
  MPI_Reduce_scatter(MPI_IN_PLACE, data.data(), counts.data(), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}
void ReduceScatterBlock(std::vector<float>& data, int size) {
  MPI_Reduce_scatter_block(MPI_IN_PLACE, data.data(), static_cast<int>(data.size()) / size,
                           MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

double Microseconds(Operation operation, std::vector<float>& data, int warmup, int times,
                    int size) {
  for (int i = 0; i < warmup; ++i) operation(data, size);
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int i = 0; i < times; ++i) operation(data, size);
  MPI_Barrier(MPI_COMM_WORLD);
  return (MPI_Wtime() - start) * 1e6 / times;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  MPI_Init(&argc, &argv);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const std::string_view kind = argv[1];
  std::vector<Operation> forms = {&AllReduce};
  if (kind == "all-gather") forms = {&AllGather};
  if (kind == "reduce-scatter") forms = {&ReduceScatter, &ReduceScatterBlock};
  for (int i = 3; i < argc; ++i) {
    long long num_bytes = 0;
    int warmup = 0;
    int times = 0;
    if (std::sscanf(argv[i], "%lld:%d:%d", &num_bytes, &warmup, &times) != 3) return 2;
    std::vector<float> data(static_cast<size_t>(num_bytes) / sizeof(float));
    double least = 0;
    for (const Operation form : forms) {
      const double us = Microseconds(form, data, warmup, times, size);
      if (least == 0 || us < least) least = us;
    }
    if (rank == 0) std::printf("%.3f\n", least);
  }
  MPI_Finalize();
  return 0;
}
