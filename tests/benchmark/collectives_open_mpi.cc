// collectives_open_mpi KIND BYTES TIMES SIZE, under mpirun: prints the microseconds of one
// operation, in place, float32. For collectives_bench.cc.
#define OMPI_SKIP_MPICXX 1  // the C interface alone
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace {

void Operate(std::string_view kind, std::vector<float>& data, int size) {
  const int count = static_cast<int>(data.size());
  if (kind == "all-reduce") {
    MPI_Allreduce(MPI_IN_PLACE, data.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  } else if (kind == "reduce-scatter") {
    MPI_Reduce_scatter_block(MPI_IN_PLACE, data.data(), count / size, MPI_FLOAT, MPI_SUM,
                             MPI_COMM_WORLD);
  } else {
    MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data.data(), count / size, MPI_FLOAT,
                  MPI_COMM_WORLD);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  MPI_Init(&argc, &argv);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int times = std::atoi(argv[3]);
  std::vector<float> data(static_cast<size_t>(std::atoll(argv[2])) / sizeof(float));
  for (int i = 0; i < times / 10 + 5; ++i) Operate(argv[1], data, size);
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int i = 0; i < times; ++i) Operate(argv[1], data, size);
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == 0) std::printf("%.3f\n", (MPI_Wtime() - start) * 1e6 / times);
  MPI_Finalize();
  return 0;
}
