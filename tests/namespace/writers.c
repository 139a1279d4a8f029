/* A program that has a file open for writing in a way of its own, until it is ended: `thread`, whose first thread has ended,
 * or `map`, which has closed the file and writes to the memory that shows it. */

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *say_and_wait(void *unused)
{
	/* Until the first thread has ended, its descriptors are seen. */
	usleep(100000);
	write(1, "open\n", 5);
	for (;;)
		pause();
	return unused;
}

int main(int count, char **words)
{
	pthread_t thread;
	int file = count == 3 ? open(words[2], O_RDWR | O_CREAT, 0644) : -1;

	if (file < 0 || ftruncate(file, 4096) != 0)
		return 1;
	if (strcmp(words[1], "thread") == 0) {
		if (pthread_create(&thread, NULL, say_and_wait, NULL) != 0)
			return 1;
		pthread_exit(NULL);
	}
	if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED)
		return 1;
	close(file);
	say_and_wait(NULL);
}
