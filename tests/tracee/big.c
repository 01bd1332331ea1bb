/* After a byte on standard input ends, which takes its time: so much memory is given back page by page. */
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
	size_t size = 200 << 20;
	char c, *all = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (all == MAP_FAILED)
		return 1;
	madvise(all, size, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < size; i += 4096)
		all[i] = 1;
	if (read(0, &c, 1) < 0)
		return 1;
	_exit(0);
}
