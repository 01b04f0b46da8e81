/* cuRAND: the provider is linked to it and calls nothing of it for the project's graphs. */
int curandGetVersion(int *version)
{
    *version = 10400;
    return 0;
}
